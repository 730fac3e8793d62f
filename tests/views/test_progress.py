"""Progress of experiments: as an object, in a terminal, in lines."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from rich.screen import Screen

from ems import databases
from ems.databases import Experiment, Outcome, State
from ems.lab import Lab
from ems.spool.batch import Mark
from ems.views import watch
from ems.views.progress import Progress, look
from tests.conftest import ran
from tests.databases.cases import REGISTRATION, batch, failed, floats
from tests.processes import PATIENCE_S

WATCH = [sys.executable, "-m", "ems.cli", "watch"]


def experiment(stack: str = "svd", total: int = 1000, **changes) -> Experiment:
    began = datetime.now(UTC) - timedelta(seconds=20)
    running = Experiment(
        registration=replace(REGISTRATION, stack=stack, id=f"id-{stack}", points_total=total),
        state=State.RUNNING,
        attempt=1,
        wanted_attempt=1,
        points_done=190,
        points_failed=10,
        rows_stored=1234,
        machines=1,
        cost_usd=0.0,
        cancel_requested=False,
        registered_at=began,
        started_at=began,
        heartbeat_at=began,
    )
    return replace(running, **changes)


def progress(stack: str = "svd", total: int = 1000, log: int = 9, **changes) -> Progress:
    marks = tuple(
        Mark(point, "failed", {"n": 10, "x": point}, f"Traceback …\nValueError: no {point}") for point in (3, 4)
    )
    return Progress(experiment(stack, total, **changes), 20.0, 2, marks, tuple(f"[line] {n}" for n in range(log)))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Lab:
    return Lab(tmp_path, "lab", uuid.UUID(int=1), "sqlite:///x.db")


def test_what_a_run_says_of_itself() -> None:
    running = progress()
    assert repr(running) == (
        "svd: running · 200 of 1,000 points · 20/s · 40 s left · 10 failed · 2 workers · 1,234 rows · 20 s"
    ).replace("200 of", "190 of")
    assert (running.share, running.percent, running.left) == (0.2, "20 %", timedelta(seconds=40))
    assert progress(points_done=989).percent == "99 %" and progress(points_done=990).percent == "100 %"
    assert progress(state=State.SUCCEEDED).left is None
    assert "2 h 46 min left" in repr(replace(progress(points_done=0, points_failed=0), rate=0.1))
    one = Progress(experiment(total=1, points_done=0, points_failed=0, attempt=2), None, None, (), ())
    assert repr(one) == "svd: running · 1,234 rows · attempt 2 · 20 s"


def test_html_shows_the_same_and_nothing_of_it_is_code() -> None:
    shown = replace(progress("<b>", error="<script>"), failures=(failed(1, "<img>"),))._repr_html_()
    assert '<progress value="0.2000"' in shown and "20 %" in shown and "40 s left" in shown
    assert all(f"&lt;{word}&gt;" in shown for word in ("b", "script", "img"))
    assert "<script" not in shown and "<img" not in shown
    assert "<progress" not in progress(total=1)._repr_html_()


def test_the_drivers_file_says_rate_and_workers_while_it_is_fresh(elsewhere: Lab) -> None:
    running = experiment(points_failed=0)
    folder = elsewhere.run_dir(running.id)
    folder.mkdir(parents=True)
    assert (look(elsewhere, running).rate, look(elsewhere, running).workers) == (None, None)
    file = folder / "progress.json"
    file.write_text(json.dumps({"done": 1, "failed": 0, "rate": 12.5, "workers": 3, "running": 4}))
    (folder / "job.log").write_bytes(b"\xff\n" + b"".join(b"line %d\n" % n for n in range(99)))
    now = look(elsewhere, running)
    assert (now.rate, now.workers, now.log[-1], len(now.log)) == (12.5, 3, "line 98", 50)
    ended = look(elsewhere, replace(running, state=State.SUCCEEDED))
    assert (ended.rate, ended.workers, ended.log) == (None, None, ())
    os.utime(file, (time.time() - 60,) * 2)
    assert (look(elsewhere, running).rate, look(elsewhere, running).workers) == (None, None)


def test_of_a_run_elsewhere_the_mean_rate_is_known_in_its_first_attempt(elsewhere: Lab) -> None:
    running = experiment(points_failed=0, points_done=200)
    assert look(elsewhere, running).rate == pytest.approx(10, rel=0.1)
    assert look(elsewhere, replace(running, attempt=2)).rate is None
    assert look(elsewhere, replace(running, state=State.LOST)).rate is None


def test_the_last_failures_are_read(here: Lab) -> None:
    running = ran(here, batch([0], floats("x", 1.0), marks=tuple(failed(n, seed=n) for n in range(1, 9))), state=None)
    assert look(here, running).failures == ()
    found = look(here, replace(running, points_failed=8)).failures
    assert [mark.point for mark in found] == [4, 5, 6, 7, 8]


# In a terminal


def drawn(*looks: Progress, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(Screen(watch.Page("mylab", looks)), end="")
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (40, 10), (20, 4), (5, 2)])
def test_the_page_fits_every_terminal(width: int, height: int) -> None:
    many = [progress(f"stack-with-a-long-name-{n}") for n in range(5)]
    ended = [progress(f"ended-{n}", state=State.SUCCEEDED) for n in range(9)]
    lines = drawn(*many, *ended, width=width, height=height)
    assert len(lines) == height and all(len(line) <= width for line in lines)


def test_the_page_has_bars_failures_and_as_much_of_the_log_as_there_is_room() -> None:
    lines = drawn(progress("done", state=State.FAILED), progress(log=50), width=100, height=20)
    page = "\n".join(lines)
    assert lines[0].startswith("mylab: 1 of 2 under way")
    assert lines[1].startswith("svd  running") and lines[1].rstrip().endswith("20 %") and "━" in lines[1]
    assert "190 of 1,000 points · 20/s · 40 s left · 10 failed · 2 workers" in lines[2]
    assert "point 4 (n=10, x=4): ValueError: no 4" in page and "Traceback" not in page
    assert lines[5].startswith("done failed") and "190 of 1,000 points" in lines[5]
    assert lines[6].strip() == "log:" and lines[-2].strip() == "[line] 49" and len(lines) == 20
    assert "Ctrl-C leaves" in lines[-1]


def test_what_does_not_fit_is_counted() -> None:
    lines = drawn(*(progress(f"s{n}") for n in range(9)), width=80, height=10)
    assert "… and 29 more lines" in lines[-2] and lines[1].startswith("s0 running")


def test_of_thousands_only_those_that_fit_are_drawn(monkeypatch) -> None:
    made, bar_line = [], watch._bar_line
    monkeypatch.setattr(watch, "_bar_line", lambda look, width: made.append(look) or bar_line(look, width))
    ended = [progress(f"ended-{n:04}", state=State.SUCCEEDED) for n in range(2_000)]
    lines = drawn(progress("svd"), *ended, width=80, height=24)
    assert "… and 1,983 more lines" in lines[-2] and lines[1].startswith("svd ")
    assert len(made) <= 24


def test_what_has_ended_is_drawn_again_only_when_it_or_the_width_has_changed(monkeypatch) -> None:
    made, bar_line = [], watch._bar_line
    monkeypatch.setattr(watch, "_bar_line", lambda look, width: made.append(look.stack) or bar_line(look, width))
    page = watch.Page("mylab", [progress("svd"), *(progress(f"ended-{n}", state=State.SUCCEEDED) for n in range(10))])

    def draw(width: int) -> list[str]:
        made.clear()
        console = Console(file=io.StringIO(), width=width, height=24, color_system=None)
        console.print(Screen(page), end="")
        return console.file.getvalue().splitlines()

    first = draw(80)
    assert len(made) == 11
    assert draw(80)[1:] == first[1:] and made == ["svd"]  # the first line has the time
    assert len(draw(60)[1]) == 60 and len(made) == 11
    page.looks = [*page.looks[:-1], progress("ended-9", state=State.FAILED)]
    assert "ended-9 failed" in "\n".join(draw(60)) and made == ["svd", "ended-9"]


class Terminal:
    """`ems watch` in a terminal of its own."""

    def __init__(self, width: int, height: int) -> None:
        self.ours, theirs = pty.openpty()
        self.resize(width, height)
        self.process = subprocess.Popen(WATCH, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self.said = ""

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait_for(self, text: str) -> None:
        while text not in self.said:
            self.said += os.read(self.ours, 65536).decode("utf-8", errors="replace")

    def end(self) -> int:
        """Read on to its end; the exit code."""
        try:
            while data := os.read(self.ours, 65536):
                self.said += data.decode("utf-8", errors="replace")
        except OSError:  # how Linux says that the other side has closed
            pass
        os.close(self.ours)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_it_takes_the_screen_and_ctrl_c_gives_it_back(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.0)), state=None)
    seen = Terminal(80, 24)
    seen.wait_for("1 of 1 under way")
    assert "\x1b[?1049h" in seen.said
    seen.resize(30, 8)
    seen.said = ""
    seen.wait_for("Ctrl-C leaves; the runs go on.")
    seen.process.send_signal(signal.SIGINT)
    assert seen.end() == 130
    after = seen.said.rpartition("\x1b[?1049l")[2]
    assert "pi: running · 1 row ·" in after and "Traceback" not in seen.said


@pytest.mark.usefixtures("terminal")
def test_it_ends_with_the_last_run_and_says_how(here: Lab) -> None:
    running = ran(here, batch([0], floats("x", 1.0)), state=None)
    seen = Terminal(80, 24)
    seen.wait_for("1 of 1 under way")
    end(here, running)
    assert seen.end() == 0
    assert "pi: succeeded" in seen.said.rpartition("\x1b[?1049l")[2]


@pytest.mark.usefixtures("terminal")
def test_where_nothing_is_under_way_it_says_so_without_a_screen(here: Lab) -> None:
    ran(here, batch([0], floats("x", 1.0)))
    seen = Terminal(80, 24)
    assert seen.end() == 0
    assert "\x1b[?1049h" not in seen.said and "pi: succeeded · 1 row ·" in seen.said


def end(here: Lab, running: Experiment) -> None:
    claim = databases.Claim(running.id, running.attempt, running.registration.results_table, None)
    with closing(databases.connect(here.database_url, here.root)) as database:
        database.release(claim, Outcome(State.SUCCEEDED, points_done=1, points_failed=0))


def test_in_a_pipe_it_prints_lines(here: Lab) -> None:
    running = ran(here, batch([0], floats("x", 1.0)), state=None)
    environment = {**os.environ, "FORCE_COLOR": "1"}
    process = subprocess.Popen(WATCH, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("pi: running · 1 row ·")
    end(here, running)
    lines = process.communicate(timeout=PATIENCE_S)[0].splitlines()
    assert process.returncode == 0 and lines[-1].startswith("pi: succeeded · 1 row ·")
    assert "\x1b[?1049h" not in "".join(lines)
