"""What looks at a run endures while PostgreSQL is stopped and started: a server of these tests' own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

import ems
from ems import lab
from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases import Experiment
from ems.lab import Lab
from ems.lab.patience import Patience
from tests.conftest import ran
from tests.databases.cases import batch, floats
from tests.databases.servers import PostgresqlServer
from tests.processes import PATIENCE_S
from tests.views.test_progress import Terminal, end, terminal

__all__ = ["terminal"]
pytestmark = pytest.mark.xdist_group("watching_away")
EMS = [sys.executable, "-m", "ems.cli"]
AWAY = "The database is away, waiting for it"


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer.make()
    yield server
    server.end()


@pytest.fixture
def there(here: Lab, own: PostgresqlServer) -> Iterator[Lab]:
    """A lab whose database is in that server."""
    with own.database() as name:
        file = here.root / "Pulumi.yaml"
        file.write_text(file.read_text().replace(here.database_url, own.url(name)))
        yield lab.find()


@pytest.fixture
def running(there: Lab) -> Experiment:
    return ran(there, batch([0], floats("x", 1.0)), state=None)


def told(lines: list[str]) -> list[str]:
    return [line for line in lines if "The database is" in line]


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([*EMS, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def line_with(process: subprocess.Popen[str], text: str, seen: list[str]) -> None:
    assert process.stdout
    while not seen or text not in seen[-1]:
        line = process.stdout.readline()
        assert line, seen
        seen.append(line)


def test_watch_in_a_pipe_says_once_that_it_waits_and_goes_on(there: Lab, own: PostgresqlServer, running: Experiment):
    process, seen = started("watch"), []
    line_with(process, "pi: running", seen)
    own.stop()
    try:
        line_with(process, AWAY, seen)
    finally:
        own.start()
    line_with(process, "The database is back.", seen)
    end(there, running)
    seen += process.communicate(timeout=PATIENCE_S)[0].splitlines()
    assert process.returncode == 0 and "pi: succeeded" in seen[-1]
    assert len(told(seen)) == 2 and "does not answer" in told(seen)[0]


@pytest.mark.usefixtures("terminal")
def test_watch_on_a_terminal_says_so_on_its_last_line(there: Lab, own: PostgresqlServer, running: Experiment):
    seen = Terminal(80, 24)
    seen.wait_for("Ctrl-C leaves; the runs go on.")
    own.stop()
    try:
        seen.wait_for(AWAY)
        seen.said = ""
        seen.wait_for("1 of 1 under way")  # the page goes on
    finally:
        own.start()
    seen.said = ""
    seen.wait_for("Ctrl-C leaves; the runs go on.")
    end(there, running)
    assert seen.end() == 0
    assert "pi: succeeded" in seen.said.rpartition("\x1b[?1049l")[2]


def test_a_log_is_followed_also_meanwhile(there: Lab, own: PostgresqlServer, running: Experiment):
    log = there.run_dir(running.id) / "job.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n")
    process, seen = started("logs", "pi", "-f"), []
    line_with(process, "first", seen)
    own.stop()
    try:
        line_with(process, AWAY, seen)
        with log.open("a") as file:
            file.write("second\n")
        line_with(process, "second", seen)
    finally:
        own.start()
    end(there, running)
    seen += process.communicate(timeout=PATIENCE_S)[0].splitlines()
    assert process.returncode == 0 and len(told(seen)) == 2


def test_a_loop_in_python_goes_on(there: Lab, own: PostgresqlServer, running: Experiment, capfd):
    """The database goes away between the look and what the loop's body reads."""
    seen = []
    for progress in ems.watch("pi"):
        if not seen:
            own.stop()
            threading.Timer(1.5, own.start).start()
        rows = len(ems.results("pi"))
        seen.append((str(progress.state), rows, ems.progress("pi").rows))
        if len(seen) == 2:
            end(there, running)
    assert seen[0] == ("running", 1, 1) and seen[-1] == ("succeeded", 1, 1)
    assert len(told(capfd.readouterr().err.splitlines())) == 2


@pytest.mark.parametrize("words", [("watch",), ("logs", "pi", "-f"), ("status",)])
def test_a_first_look_that_finds_no_database_is_an_error(there: Lab, own: PostgresqlServer, words: tuple[str, ...]):
    own.stop()
    try:
        process = started(*words)
        said = process.communicate(timeout=PATIENCE_S)[0]
    finally:
        own.start()
    assert process.returncode == 4 and "does not answer" in said and AWAY not in said


def test_other_errors_end_it(there: Lab, own: PostgresqlServer, running: Experiment):
    process, seen = started("watch"), []
    line_with(process, "pi: running", seen)
    own.execute("ALTER TABLE experiment RENAME TO elsewhere", there.database_url.rpartition("/")[2])
    rest = process.communicate(timeout=PATIENCE_S)[0]
    assert process.returncode == 4 and "error:" in rest and AWAY not in rest


def test_pauses_grow_and_begin_anew():
    said = []
    patience = Patience(said.append)
    away = DatabaseUnavailable("It does not answer.")
    assert [patience.away(away) for _ in range(7)] == [0.5, 1, 2, 4, 8, 10, 10]
    patience.back()
    assert patience.away(away) == 0.5 and len(said) == 3
    with pytest.raises(DatabaseError, match="another"):
        patience(lambda: (_ for _ in ()).throw(DatabaseError("another")))
