"""Every database of a lab takes imports: exactly once, whatever ends the command, beside other experiments' rows."""

from __future__ import annotations

import math
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from ems import databases
from ems.databases import Outcome, State
from ems.importing import storing
from ems.lab import Lab, find
from tests.cli.running import PROGRAM, run
from tests.databases.cases import batch, ints
from tests.importing.bringing import CSV, STORED, bring, experiments, newest, refused, rows, set_up, write
from tests.processes import eventually

URLS = ("sqlite", "postgresql_url", "bigquery_url", "dynamodb_url")


def move(here: Lab, url: str) -> Lab:
    """The lab with another database."""
    file = here.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace("sqlite:///.ems/ems.db", url))
    moved = find()
    set_up(moved)
    return moved


@pytest.fixture(params=URLS)
def lab(request: pytest.FixtureRequest, here: Lab) -> Lab:
    name = request.param
    return move(here, "sqlite:///.ems/other.db" if name == "sqlite" else request.getfixturevalue(name))


def test_a_table_arrives_and_arrives_once(lab):
    write("runs.csv", CSV)
    write("more.csv", "m,extra\n5,0.5\n")
    run("import", "runs.csv", "--as", "phase", "--parameters", "k,m")
    run("import", "more.csv", "--as", "more", "--into", "phase")
    assert bring("runs.csv", "--as", "phase", "--title", "Known")["done"] == "already imported"
    found = rows(lab, "phase")
    assert {name: found[name] for name in STORED} == STORED and rows(lab, "more")["extra"] == [0.5]
    assert newest(lab, "phase").state is State.SUCCEEDED and newest(lab, "phase").rows_stored == 3
    assert "imported from runs.csv" in run("results", "phase").stdout and "imported" in run("status").stdout
    said = refused(str(write("bad.csv", "m,label\none,2\n")), "--as", "bad", "--into", "phase", expect=4)
    assert "column 'm' is int64 and cannot take text" in said
    assert "--type COLUMN=TYPE" in said and "--into TABLE" in said and "columns:" not in said
    assert {found.registration.stack for found in experiments(lab)} == {"phase", "more"}


def test_values_that_a_database_does_not_take_are_refused_before(lab):
    write("runs.jsonl", '{"x": 1.5, "t": "a\\u0000b"}\n{"x": NaN, "t": null}\n')
    if lab.database_url.startswith("postgresql"):
        assert "text has NUL" in refused("runs.jsonl", "--as", "phase", expect=4)
        assert experiments(lab) == []
        return
    run("import", "runs.jsonl", "--as", "phase")
    found = rows(lab, "phase")
    assert found["t"] == ["a\0b", None] and found["x"][0] == 1.5
    keeps_nan = not lab.database_url.startswith("sqlite")
    assert math.isnan(found["x"][1]) if keeps_nan else found["x"][1] is None


@pytest.mark.parametrize("keeps_order", [True, False])
def test_an_import_that_was_begun_elsewhere_goes_on_or_begins_anew(lab, keeps_order):
    """As after a crash of another machine: its claim has lapsed, its first rows are stored."""
    write("runs.csv", CSV)
    run("import", "runs.csv", "--as", "phase")
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        database.register(replace(newest(lab, "phase").registration, id="other", stack="other"))
        numbers = [batch([0], ints("m", m), rows=[row]) for row, m in enumerate((10, 10, 20))]
        claim = database.claim("other", agent="elsewhere", lease_s=0.1)
        assert claim
        for stored in numbers[:2] if keeps_order else [batch([0], ints("m", 7), rows=[row]) for row in range(4)]:
            database.store(claim, stored)
        time.sleep(0.2)
        told = storing.store(lab, database, "other", "here", iter(numbers), keeps_order, print)
        assert told.there == (2 if keeps_order else 0)
        shown: list[float] = []
        told.run(3, shown.append, lambda: None, "told")
        found = database.experiment("other")
        assert found and (found.state, found.rows_stored, found.attempt) == (State.SUCCEEDED, 3, 2)
        assert shown[-1] == 1.0 and found.log_tail == "told"
    assert rows(lab, "other")["m"] == [10, 10, 20] and rows(lab, "phase")["m"] == [10, 10, 20]


def test_a_lab_with_imports_moves_to_another_database(here, postgresql_url):
    lab = move(here, "sqlite:///.ems/other.db")
    write("runs.csv", CSV)
    run("import", "runs.csv", "--as", "phase", "--title", "Known")
    run("database", "check")
    run("database", "copy", lab.database_url, postgresql_url)
    there = Lab(lab.root, lab.name, lab.id, postgresql_url)
    assert newest(there, "phase").registration == newest(lab, "phase").registration
    assert rows(there, "phase") == rows(lab, "phase") == STORED


# Ends in the middle


ROWS = 150_000


def many(rows: int = ROWS) -> Path:
    return write("many.csv", "i,x,label\n" + "".join(f"{i},{i / 7},row {i}\n" for i in range(rows)))


def start(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*PROGRAM, "import", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def stored(lab: Lab) -> int:
    found = experiments(lab)
    return found[0].rows_stored if found else 0


def assert_all(lab: Lab) -> None:
    found, row = rows(lab, "many"), newest(lab, "many")
    assert (row.state, row.rows_stored, row.points_done) == (State.SUCCEEDED, ROWS, 1)
    assert sorted(found["i"]) == list(range(ROWS)) and found["row"] == list(range(ROWS))
    assert all(x == i / 7 for i, x in zip(found["i"], found["x"], strict=True))


@pytest.fixture(params=URLS[:2])
def laptop(request: pytest.FixtureRequest, here: Lab) -> Lab:
    name = request.param
    return move(here, "sqlite:///.ems/other.db" if name == "sqlite" else request.getfixturevalue(name))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_repeated_every_row_is_there_once(laptop, number):
    many()
    for _ in range(2):
        before = stored(laptop)
        killed = start("many.csv", "--as", "many")
        eventually(lambda before=before: stored(laptop) > before)
        killed.send_signal(number)
        killed.wait()
    assert 0 < stored(laptop) < ROWS and newest(laptop, "many").state in {State.RUNNING, State.LOST}
    said = run("import", "many.csv", "--as", "many")
    assert "Going on after" in said.stderr and newest(laptop, "many").attempt == 3
    assert_all(laptop)
    assert bring("many.csv", "--as", "many")["done"] == "already imported"


def test_killed_before_anything_was_registered(laptop):
    many()
    killed = start("many.csv", "--as", "many")
    time.sleep(1.5)
    killed.kill()
    killed.wait()
    run("import", "many.csv", "--as", "many")
    assert_all(laptop)


def test_a_table_without_a_key_begins_anew(laptop, postgresql_url):
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE archive AS SELECT i, i / 7.0::float8 AS x FROM generate_series(0, {ROWS - 1}) i"
        )
    killed = start(postgresql_url, "--table", "archive", "--as", "many")
    eventually(lambda: stored(laptop))
    killed.kill()
    killed.wait()
    assert "Going on" not in run("import", postgresql_url, "--table", "archive", "--as", "many").stderr
    assert_all(laptop)


def test_stopped_on_request_and_given_up(here):
    lab = move(here, "sqlite:///.ems/other.db")
    many(4 * ROWS)
    importing = start("many.csv", "--as", "many")
    eventually(lambda: stored(lab))
    run("stop", "many")
    _, said = importing.communicate()
    assert importing.returncode == 6 and b"stopped on request" in said
    assert newest(lab, "many").state is State.CANCELLED
    write("other.csv", CSV)
    run("import", "other.csv", "--as", "many")
    found = rows(lab, "many")
    assert {name: found[name] for name in STORED} == STORED
    assert len(experiments(lab)) == 2


def test_what_was_given_up_may_come_back(lab):
    """Whatever was registered last, what was imported last is what the name stands for."""
    contents = {"a": "x\n1\n", "b": "x\n2\n"}
    write("done.csv", CSV)
    run("import", "done.csv", "--as", "done")
    row = newest(lab, "done").registration
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        for name, content in contents.items():
            planned = bring(str(write(f"{name}.csv", content)), "--as", "phase", "--dry-run")
            database.register(replace(row, id=planned["experiment_id"], stack="phase", results_table="phase"))
            assert "is not finished: it is registered" in refused("done.csv", "--as", "phase")
            run("stop", "phase")
    run("import", "a.csv", "--as", "phase")
    assert "from other content" in refused("b.csv", "--as", "phase")
    assert rows(lab, "phase")["x"] == [1] and newest(lab, "phase").state is State.SUCCEEDED


def test_one_that_slept_while_another_went_on_changes_nothing(here):
    lab = move(here, "sqlite:///.ems/other.db")
    many()
    asleep = start("many.csv", "--as", "many")
    eventually(lambda: stored(lab))
    asleep.send_signal(signal.SIGSTOP)
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        row = newest(lab, "many").registration
        claim = database.claim(row.id, agent=newest(lab, "many").agent, lease_s=3600)
        assert claim
        asleep.send_signal(signal.SIGCONT)
        _, said = asleep.communicate()
        assert asleep.returncode == 4 and b"took over" in said
        database.release(claim, Outcome(State.LOST, 0, 0))
    run("import", "many.csv", "--as", "many")
    assert_all(lab)


def test_another_machine_that_is_at_it_is_left_alone(laptop):
    write("runs.csv", CSV)
    planned = bring("runs.csv", "--as", "phase", "--dry-run")
    run("import", "runs.csv", "--as", "other")
    with closing(databases.connect(laptop.database_url, laptop.root)) as database:
        row = replace(newest(laptop, "other").registration, id=planned["experiment_id"], stack="phase")
        database.register(row)
        claim = database.claim(row.id, agent="elsewhere", lease_s=3600)
        assert claim
        assert "Another machine is importing" in refused("runs.csv", "--as", "phase", expect=7)
        database.release(claim, Outcome(State.FAILED, 0, 0, error="no room"))
    shown = run("status", "phase").stdout
    assert "no room" in shown and "ems import SOURCE --as phase" in shown
    run("import", "runs.csv", "--as", "phase")
    assert rows(laptop, "phase") == STORED


def test_a_source_that_changes_meanwhile_is_noticed(here):
    lab = move(here, "sqlite:///.ems/other.db")
    path = many()
    importing = start("many.csv", "--as", "many")
    eventually(lambda: stored(lab))
    with path.open("a") as file:
        file.write("1,2,3\n")
    _, said = importing.communicate()
    assert importing.returncode == 2 and b"was changed while it was read" in said.replace(b"\n", b" ")
    found = newest(lab, "many")
    assert found.state is State.FAILED and "changed" in found.error
