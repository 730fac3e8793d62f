"""What views ask of a lab that has grown old: the newest experiments alone, and again only what may have changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from benchmarks.old_lab import fill, id_of
from ems.cli import app as cli
from ems.databases import Database, connect
from ems.databases.sqlite.database import SqliteDatabase
from ems.engine import doctor
from ems.lab import Lab, experiments
from ems.lab.patience import Patience
from ems.views.progress import Looking

EMS = Path(__file__).parents[2] / "ems"
STACKS, EXPERIMENTS = 4, 20


@pytest.fixture
def old(here: Lab) -> Iterator[Database]:
    """The database of an old lab, of whose newest experiments one is running: that of stack0003."""
    with closing(connect(here.database_url, here.root)) as database:
        fill(database, STACKS, EXPERIMENTS, rows=100, running=1)
        yield database


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The stacks of each question for the newest experiments."""
    calls: list[object] = []
    ask = SqliteDatabase.newest

    def noted(self, stacks=None, also=()):
        calls.append(stacks)
        return ask(self, stacks, also)

    monkeypatch.setattr(SqliteDatabase, "newest", noted)
    return calls


@pytest.mark.parametrize("command", ["status", "results", "failures", "logs", "read"])
def test_a_view_of_one_stack_asks_for_that_one(old, asked, monkeypatch, command):
    monkeypatch.setattr(SqliteDatabase, "experiments", None)
    result = CliRunner().invoke(cli.app, [command, "stack0002"])
    assert result.exit_code == 0, result.output
    assert asked == [["stack0002"]]
    if command == "logs":
        assert "a line of a log" in result.stdout


def test_views_of_the_lab_ask_for_the_newest_of_each_stack(old, here, asked, monkeypatch):
    monkeypatch.setattr(SqliteDatabase, "experiments", None)
    shown = CliRunner().invoke(cli.app, ["status"])
    assert [f"stack{n:04}" in shown.stdout for n in range(STACKS)] == [True] * STACKS
    assert f"experiments of {STACKS} stacks" in {found.name: found.detail for found in doctor.examine()}["database"]
    assert asked == [None, None]


def test_only_copies_load_all_experiments_and_cleaning_those_of_its_stack():
    asking = {file.relative_to(EMS) for file in EMS.rglob("*.py") if re.search(r"\.experiments\(", file.read_text())}
    assert asking == {Path("databases/copying.py"), Path("databases/comparing.py"), Path("lab/left.py")}
    assert "database.experiments(stack)" in (EMS / "lab/left.py").read_text()


def test_what_is_long_is_read_where_it_is_shown(old, here):
    (found,) = experiments.newest(here, ["stack0001"])
    assert (found.registration.spec, found.log_tail, found.platform) == ("", "", "")
    shown = CliRunner().invoke(cli.app, ["status", "stack0001", "--json"])
    assert '"cpu": "xxx' in shown.stdout
    stopped = CliRunner().invoke(cli.app, ["stop", "stack0001", "--json"])
    assert '"cpu": "xxx' in stopped.stdout


def test_following_asks_again_for_what_is_under_way(old, here, asked, monkeypatch):
    monkeypatch.setattr(experiments, "POLL_S", 0.01)
    seen = list(islice(experiments.follow(here, None, Patience(print)), 3))
    assert asked == [None, ["stack0003"], ["stack0003"]]
    assert [[each.registration.stack for each in look] for look in seen] == [[f"stack{n:04}" for n in range(4)]] * 3
    assert all(before is after for before, after in zip(seen[0][:3], seen[2][:3], strict=True))


def test_following_sees_what_was_begun_elsewhere_at_the_next_look_at_all(old, here, asked, monkeypatch):
    seconds = count(step=10.0)
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _pause_s: None)
    monkeypatch.setattr(experiments, "time", clock)
    looks = experiments.follow(here, None, Patience(print))
    assert next(looks)[0].id == id_of(16)
    old.register(replace(old.experiment(id_of(16)).registration, id="new"))
    (seen,) = islice((look for look in looks if look[0].id == "new"), 1)
    assert asked[-1] is None and ["stack0003"] in asked
    assert len(seen) == STACKS


def test_a_watch_looks_again_at_what_may_have_changed(old, here):
    looking, rows = Looking(here), experiments.newest(here)
    first, second = looking(rows), looking(rows)
    assert [before is after for before, after in zip(first, second, strict=True)] == [True, True, True, False]
    changed = [replace(rows[0], rows_stored=7), *rows[1:]]
    assert looking(changed)[0].rows == 7
