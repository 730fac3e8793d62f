"""Values are shown as they are: nothing that a job, a colleague or a file says is markup, or steers the terminal."""

from __future__ import annotations

import io
import json
import time
from array import array
from dataclasses import replace

import pytest
import rich.text
from hypothesis import given
from hypothesis import strategies as st

from ems.base import console
from ems.base.errors import EmsError
from ems.databases import Checkup
from ems.databases.comparing import Compared
from ems.engine.doctor import Finding
from ems.engine.preflight import Report
from ems.engine.teardown import Leftover
from ems.spool.batch import Batch, Column, Mark
from ems.views import check, database, doctor, failures, progress, results, status, teardown, watch
from tests.processes import eventually
from tests.views.drawing import FINISHED

HOSTILE = ["[/data/x.csv]", "no [axis] in", "[bold]x[/]", "[/]", ":secret:", "\x1b[31mred", "a\x07b\x9b2Jc", "\x7f"]
hostile = pytest.mark.parametrize("value", HOSTILE)


def shown(what: object) -> str:
    plain = console.Plain(file=io.StringIO(), width=300, force_terminal=False)
    plain.print(what)
    return plain.file.getvalue()


def experiment(value: str):
    registration = replace(FINISHED.registration, stack=value, project=value)
    return replace(FINISHED, registration=registration, error=value, log_tail=value, agent=value)


def views(value: str):
    mark = Mark(3, "failed", {value: value}, f"Traceback\n{value}")
    batch = Batch(array("q", [0]), array("q", [0]), (Column(value, "text", [value]),))
    look = progress.Progress(experiment(value), 1.0, 1, (mark,), (value,))
    yield status.status_page([experiment(value)], 300)
    yield results.table(iter([batch]), experiment(value))
    yield failures.page([mark], experiment(value))
    yield teardown.certificate([Leftover(value, experiment(value), 1, value)])
    yield check.page([Report(value, value, (value,), (value,), 2)])
    yield doctor.page([Finding(value, False, value, value)])
    yield database.page(value, Checkup(value, value, (), 1, 1, 0.0, 0.0, (value,)))
    yield database.comparison([Compared(value, 1, 2, False)])
    yield watch.Page(value, [look])


@hostile
def test_every_view_shows_it_whole_and_obeys_nothing(value):
    for view in views(value):
        text = shown(view)
        assert console.visible(value) in text, view
        assert not console.CONTROL.search(text), view


@hostile
def test_remarks_and_errors_show_it_too(value, capsys):
    console.say(value)
    console.show_error(EmsError(value, value))
    printed = capsys.readouterr().err
    assert printed.count(console.visible(value)) == 3 and not console.CONTROL.search(printed)


@given(st.text(max_size=50))
def test_no_text_steers_a_terminal(text):
    assert not console.CONTROL.search(shown(text))
    assert not console.CONTROL.search(shown(console.Text(text)))
    assert not console.CONTROL.search(shown(rich.text.Text(text)))


@pytest.mark.parametrize("width", [20, 60, 80])
def test_sentences_are_broken_between_words_and_a_long_word_stays_whole(width):
    path = "/a/folder/with-a-long-name/and/more-of-it/results-of-the-year.parquet"
    terminal = console.Plain(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    terminal.flow(f"The results of the sweep cannot be written to {path} as it is not there.\n  Make it: mkdir -p /a")
    lines = terminal.file.getvalue().splitlines()
    assert any(path in line for line in lines)
    assert all(len(line.rstrip()) <= width for line in lines if path not in line)
    assert " ".join(" ".join(lines).split()).endswith(f"{path} as it is not there. Make it: mkdir -p /a")


def test_a_command_is_never_broken_as_it_is_to_be_copied():
    terminal = console.Plain(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    command = "git add stacks/Pulumi.a-long-name.yaml experiments/a-long-name.py && git commit"
    terminal.flow(
        f"Nobody else could run this as it is here now.\n{command}\nWhat is not code, list in .gitignore now."
    )
    lines = [line.rstrip() for line in terminal.file.getvalue().splitlines()]
    assert command in lines and len(lines) == 5


def test_in_a_pipe_a_sentence_is_one_line(capsys):
    console.say("word " * 100)
    assert len(capsys.readouterr().err.splitlines()) == 1


@given(st.text(st.characters(), max_size=50))
def test_no_letter_is_refused_whatever_the_encoding(text):
    """Also halves of letters, as names of files may have."""
    for encoding in ("ascii", "latin-1", "utf-8"):
        assert text.encode(encoding, "stand-in").decode(encoding) or not text


def test_signs_have_stand_ins_of_their_width():
    assert "✓ pi · 3 rows ━━╸…".encode("ascii", "stand-in") == b"v pi - 3 rows ---~"
    assert "é".encode("ascii", "stand-in") == b"\\xe9"


@hostile
def test_json_has_the_value_itself_and_no_control_character(value, capsys):
    console.print_json({value: value})
    printed = capsys.readouterr().out
    assert json.loads(printed) == {value: value} and not console.CONTROL.search(printed)


@pytest.mark.parametrize(
    ("terminal", "seen"),
    [(True, "10 %\n20 %\n␛]0;title␇é\tx\n"), (False, "10 %\r20 %\r\n\x1b]0;title\x07é\tx\n")],
)
def test_what_others_wrote_steers_no_terminal_and_is_whole_in_a_pipe(terminal, seen, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    console.text_out().write("10 %\r20 %\r\n\x1b]0;title\x07é\tx\n")
    assert capsys.readouterr().out == seen


@pytest.mark.parametrize(
    ("is_terminal", "lasts_s", "is_shown"), [(True, 0.3, True), (True, 0.0, False), (False, 0.3, False)]
)
def test_items_are_counted_on_a_terminal_alone_and_only_where_that_takes_a_while(
    is_terminal, lasts_s, is_shown, monkeypatch
):
    terminal = console.Plain(file=io.StringIO(), width=80, force_terminal=is_terminal, force_interactive=is_terminal)
    monkeypatch.setattr(console, "err", terminal)
    monkeypatch.setattr(console, "PATIENCE_S", 0.05)
    with console.counting("checking", ["a", "b", "c"]) as items:
        taken = [time.sleep(lasts_s) or item for item in items]
    assert taken == ["a", "b", "c"]
    written = terminal.file.getvalue()
    assert ("checking" in written and "1/3" in written) is is_shown and bool(written) is is_shown


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(console, "err", console.Plain(file=written, force_terminal=True, width=80))
    monkeypatch.setattr(console, "PATIENCE_S", 0.0)
    with console.measuring("reading runs.csv") as show:
        show(0.25)
        eventually(lambda: "25%" in written.getvalue())
    assert "reading runs.csv" in written.getvalue()
    silent = io.StringIO()
    monkeypatch.setattr(console, "err", console.Plain(file=silent))
    with console.measuring("reading runs.csv") as show:
        show(0.5)
    assert silent.getvalue() == ""
