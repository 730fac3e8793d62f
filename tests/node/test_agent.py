from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from ems.databases import (
    Database,
    Experiment,
    Experimenter,
    Funding,
    Project,
    Registration,
    State,
    connect,
)
from ems.node.agent import lock
from ems.node.agent.agent import AgentConfig, agent_name
from ems.node.agent.config import tell_to_listen
from ems.node.job.keeper import MARKER
from ems.spool.batch import Batch, Column
from ems.spool.folder import Spool
from ems.stack.models import ExperimentSpec

PATIENCE_S = 60.0
ROWS = {"n": list(range(200)), "x": [n / 7 for n in range(200)]}

# Writes ROWS in two halves; between them it waits for the file `go`, if `wait` is among the parameters.
JOB = """
import json, os, pathlib, time
results = pathlib.Path(os.environ["EMS_RESULTS_DIR"])
run_dir, parameters = results.parent, json.load(open(os.environ["EMS_PARAMETERS"]))
with open(run_dir / "starts", "a") as starts:
    starts.write("x")
with open(results / "a.csv", "w", buffering=1) as file:
    print("n,x", file=file)
    for n in range(200):
        if n == 100 and parameters.get("wait"):
            (run_dir / "half").touch()
            while not (run_dir / "go").exists():
                time.sleep(0.02)
        print(f"{n},{n / 7!r}", file=file)
"""


def eventually(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come true"
        time.sleep(0.03)


def bundle(folder: Path, spec: ExperimentSpec, code: str, ems: bytes = b"") -> Path:
    aside = folder / "aside.zip"
    with zipfile.ZipFile(aside, "w") as archive:
        archive.writestr("code/job.py", code)
        archive.writestr("spec.json", spec.model_dump_json())
        if ems:
            archive.writestr("ems.zip", ems)
    return aside.rename(folder / f"{hashlib.sha256(aside.read_bytes()).hexdigest()}.zip")


def command_spec(columns: dict[str, str] | None = None) -> ExperimentSpec:
    job = {"command": ("python", "job.py"), "parameters": {"wait": 1}}
    fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env"}
    return ExperimentSpec.model_validate({**fields, "job": job, "results": {"table": "r", "columns": columns or {}}})


@dataclass
class Bench:
    """A lab with one database, in which agents are started by hand."""

    root: Path
    database: Database
    url: str
    agents: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def register(
        self, id: str = "e1", max_hours: float | None = None, points: int = 1, spec: ExperimentSpec | None = None
    ) -> Path:
        self.database.register(
            Registration(
                id=id,
                stack="s",
                digest=id,
                experimenter="researcher",
                project="p",
                funding="f",
                spec=(spec or command_spec()).model_dump_json(),
                repository="",
                commit="c",
                tree="t",
                stack_file_commit="c",
                environment="env",
                environment_digest="d",
                python="3.11",
                cluster="laptop",
                results_table="r",
                points_total=points,
                max_hours=max_hours,
            )
        )
        return self.root / "runs" / id

    def prepare(self, run_dir: Path, code: str = JOB, id: str = "e1", ems: bytes = b"", **config: float) -> Path:
        run_dir.mkdir(parents=True)
        times = {"beat_s": 0.1, "grace_s": 0.5, **config}
        package = str(bundle(run_dir, command_spec(), code, ems))
        AgentConfig(id, self.url, str(self.root), package, sys.prefix, **times).write(run_dir)
        return run_dir

    def new(self, code: str = JOB, max_hours: float | None = None, ems: bytes = b"", **config: float) -> Path:
        return self.prepare(self.register(max_hours=max_hours), code, ems=ems, **config)

    def start(self, run_dir: Path) -> subprocess.Popen[bytes]:
        with (run_dir / "agent.log").open("ab") as log:
            agent = subprocess.Popen(
                [sys.executable, "-m", "ems.node", run_dir], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.agents.append(agent)
        return agent

    def run(self, run_dir: Path, id: str = "e1") -> Experiment:
        assert self.start(run_dir).wait(PATIENCE_S) == 0
        return self.row(id)

    def row(self, id: str = "e1") -> Experiment:
        row = self.database.experiment(id)
        assert row
        return row

    def values(self, id: str = "e1") -> dict[str, list]:
        found: dict[str, list] = {}
        for batch in self.database.results(id):
            for column in batch.columns:
                found.setdefault(column.name, []).extend(column.values)
        return found


@contextlib.contextmanager
def bench_of(url: str, root: Path) -> Iterator[Bench]:
    database = connect(url, root)
    database.create()
    database.upsert(Experimenter("researcher", "A Researcher"))
    database.upsert(Project("p", "Project"))
    database.upsert(Funding("f", "Agency"))
    made = Bench(root, database, url)
    yield made
    for agent in made.agents:
        agent.kill()
        agent.wait()
    database.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_of("sqlite:///ems.db", tmp_path) as made:
        yield made


def half(run_dir: Path, agent: subprocess.Popen[bytes]) -> None:
    """Wait until the job of `agent` has written half of its rows."""
    eventually(lambda: (run_dir / "half").exists() or agent.poll() is not None)
    assert agent.poll() is None, (run_dir / "agent.log").read_text()


def pause(agent: subprocess.Popen[bytes], bench: Bench) -> None:
    """Stop the agent outside of a transaction: within one it would lock the whole database."""
    for _ in range(1000):
        agent.send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(agent.pid).status() == psutil.STATUS_STOPPED)
        time.sleep(0.05)  # its threads stop one by one
        with contextlib.suppress(sqlite3.OperationalError), locked(bench, timeout_s=0):
            return
        agent.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("The agent is always within a transaction.")


def go(run_dir: Path) -> None:
    (run_dir / "go").touch()


def family(run_dir: Path) -> list[psutil.Process]:
    """Keeper and command."""
    token = run_dir / "job.token"
    return [p for p in psutil.process_iter() if token.exists() and marker(p) == token.read_text()]


def marker(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(MARKER)
    except psutil.Error:
        return None


def test_rows_are_stored_while_the_job_runs(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    eventually(lambda: len(bench.values().get("n", [])) == 100)
    assert (bench.row().state, bench.row().agent) == (State.RUNNING, agent_name(run_dir))
    second = bench.start(run_dir)
    assert second.wait(PATIENCE_S) == 0
    assert agent.poll() is None
    go(run_dir)
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_done, row.points_failed, row.rows_stored) == (State.SUCCEEDED, 1, 0, 200)
    assert bench.values() == ROWS
    assert list(run_dir.glob("spool*")) == []
    assert not (run_dir / "exit.json").exists()
    assert (run_dir / "job.log").read_text() == "--- attempt 1 ---\n"
    assert bench.run(run_dir).attempt == 1
    assert (run_dir / "starts").read_text() == "x"


def test_a_failed_job_keeps_its_rows_and_last_words_and_can_be_repeated(bench: Bench) -> None:
    fails = (
        "import os, sys\n"
        "again = os.path.exists('../../again')\n"
        "file = open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'w')\n"
        "file.write('n\\n10\\n' if again else 'n\\n1\\n2\\n345')\n"
        "print('line\\n' * 100 + 'last words')\n"
        "sys.exit(0 if again else 3)\n"
    )
    run_dir = bench.new(fails)
    row = bench.run(run_dir)
    assert (row.state, row.error, row.points_done, row.points_failed) == (State.FAILED, "exit code 3: last words", 0, 1)
    assert row.log_tail == "line\n" * 29 + "last words\n"
    assert bench.values() == {"n": [1, 2]}
    (run_dir / "again").touch()
    bench.database.reopen("e1")
    again = bench.run(run_dir)
    assert (again.state, again.attempt, again.error) == (State.SUCCEEDED, 2, "")
    assert bench.values() == {"n": [10]}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os.kill(os.getpid(), 9)", r"killed by signal 9 \(SIGKILL\): often the machine ran out of memory"),
        ("import os; open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'w').write('n,m\\n1\\n')", r"a\.csv:2: 1 fields"),
        (
            "import os, time\nr = os.environ['EMS_RESULTS_DIR']\n"
            "[os.symlink('/dev/full', f'{r}/../spool-1/{n:08d}.batch.tmp') for n in range(2, 9)]\n"
            "open(r + '/a.csv', 'w').write('n\\n1\\n'); time.sleep(600)",
            r"spool-1 is full: No space left",
        ),
    ],
)
def test_what_went_wrong_is_in_the_row(bench: Bench, code: str, problem: str) -> None:
    run_dir = bench.new(code)
    bench.run(run_dir)
    assert bench.row().state is State.FAILED
    assert bench.values() == {}
    assert re.search(problem, bench.row().error)
    assert family(run_dir) == []


IN_RESULTS = "import os, pathlib, time\nos.chdir(os.environ['EMS_RESULTS_DIR'])\n"


def test_what_is_not_read_is_said_at_the_end(bench: Bench) -> None:
    """A job's files that give no rows are not passed over in silence."""
    code = (
        "pathlib.Path('run1').mkdir(); pathlib.Path('run1/r.csv').write_text('n\\n1\\n')\n"
        "for name in ('r.csv.gz', 'r.tsv', 'r.json', '.hidden'): pathlib.Path(name).write_text('x')\n"
        "os.mkfifo('b.csv')\n"
    )
    run_dir = bench.new(IN_RESULTS + code)
    row = bench.run(run_dir)
    said = '0 rows; not read: b.csv, r.csv.gz, r.json, r.tsv, "run1/"'
    assert (row.state, row.error, row.log_tail) == (State.SUCCEEDED, "", said)
    assert (run_dir / "job.log").read_text().splitlines()[-1] == f"--- {said} ---"


def test_declared_columns_are_read_as_declared(bench: Bench) -> None:
    code = "pathlib.Path('a.csv').write_text('zip,n\\n1234,1\\nx,2\\n')"
    run_dir = bench.prepare(bench.register(spec=command_spec({"zip": "text"})), IN_RESULTS + code)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == {"zip": ["1234", "x"], "n": [1, 2]}


ENDLESS = IN_RESULTS + (
    "file = open('a.csv', 'w')\n"
    "file.write('t,n\\n')\n"
    "line = '10,5\" pipe\\n' * 5000; endless = '10,5 pipe\\n' * 5000\n"
    "for _ in range(30): file.write(line)\n"
    "file.write('\"open\\n')\n"
    "(pathlib.Path.cwd().parent / 'half').touch()\n"
    "while True: file.write(endless); file.flush(); time.sleep(0.01)\n"
)


@pytest.mark.parametrize("order", ["stop", "SIGTERM", "deadline"])
def test_orders_are_obeyed_while_rows_never_end(bench: Bench, order: str) -> None:
    """Stray quotes, an open one, and a job that writes faster than is read."""
    run_dir = bench.new(ENDLESS, max_hours=6 / 3600 if order == "deadline" else None)
    agent = bench.start(run_dir)
    half(run_dir, agent)
    began = time.monotonic()
    if order == "stop":
        bench.database.request_cancel("e1")
    elif order == "SIGTERM":
        agent.terminate()
    assert agent.wait(PATIENCE_S) in {0, 1}
    assert time.monotonic() - began < 45
    expected = {"stop": State.CANCELLED, "SIGTERM": State.LOST, "deadline": State.EXPIRED}
    assert bench.row().state is expected[order]
    assert family(run_dir) == []


def test_a_file_rewritten_in_place_fails_the_run(bench: Bench) -> None:
    """Rows of one width, of which an early one changes after it was read."""
    code = (
        "file = open('a.csv', 'w+')\n"
        "file.write('n,state\\n' + '0,running\\n' * 100); file.flush(); time.sleep(2)\n"
        "file.seek(8); file.write('0,success\\n')\n"
    )
    row = bench.run(bench.new(IN_RESULTS + code))
    assert row.state is State.FAILED and "shortened or rewritten after 101 lines" in row.error


def test_without_a_whole_bundle_nothing_is_claimed(bench: Bench) -> None:
    """So whoever starts agents makes it again, and nothing was lost."""
    run_dir = bench.new()
    package = Path(AgentConfig.read(run_dir).bundle)
    package.write_bytes(package.read_bytes() + b"x")
    assert bench.start(run_dir).wait(PATIENCE_S) == 3
    assert f"{package} is damaged" in (run_dir / "agent.log").read_text()
    package.unlink()
    assert bench.start(run_dir).wait(PATIENCE_S) == 3
    assert "The bundle cannot be read" in (run_dir / "agent.log").read_text()
    assert (bench.row().state, bench.row().attempt) == (State.REGISTERED, 0)


def test_a_column_of_another_type_in_the_table_fails_the_run(bench: Bench) -> None:
    code = "import os; open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'w').write('n\\n{}\\n')"
    bench.run(bench.new(code.format("text")))
    row = bench.run(bench.prepare(bench.register("e2"), code.format("1"), id="e2"), "e2")
    assert row.state is State.FAILED
    assert "n" in row.error and "text" in row.error


def test_an_agent_that_is_told_to_listen_hears_a_cancellation_before_its_next_beat(bench: Bench) -> None:
    run_dir = bench.new(beat_s=3600.0, lease_s=7200.0)
    agent = bench.start(run_dir)
    half(run_dir, agent)
    bench.database.request_cancel("e1")
    tell_to_listen(run_dir)
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.CANCELLED
    tell_to_listen(bench.root / "runs" / "no agent's folder")


def test_a_cancelled_job_stops_and_keeps_its_rows(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.CANCELLED
    assert bench.values()["n"] == ROWS["n"][:100]
    assert family(run_dir) == []


def test_the_deadline_ends_a_job_even_while_the_database_is_locked(bench: Bench) -> None:
    run_dir = bench.new(max_hours=8 / 3600)
    agent = bench.start(run_dir)
    half(run_dir, agent)
    with locked(bench):
        eventually(lambda: family(run_dir) == [])
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.EXPIRED
    assert bench.values()["n"] == ROWS["n"][:100]


class locked:
    """The database, locked by another connection."""

    def __init__(self, bench: Bench, timeout_s: float = PATIENCE_S) -> None:
        self._connection = sqlite3.connect(bench.root / "ems.db", isolation_level=None, timeout=timeout_s)

    def __enter__(self) -> None:
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            self._connection.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._connection.execute("ROLLBACK")
        self._connection.close()


def test_a_locked_database_is_waited_for_and_a_crash_then_costs_no_second_run(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    with locked(bench):
        go(run_dir)
        eventually((run_dir / "exit.json").exists)
        assert list((run_dir / "spool-1").iterdir())
        agent.kill()
        agent.wait()
        heir = bench.start(run_dir)
        time.sleep(1)
        assert heir.poll() is None
    assert heir.wait(PATIENCE_S) == 0
    assert (bench.row().state, bench.row().attempt) == (State.SUCCEEDED, 2)
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "x"


def lapse(bench: Bench) -> None:
    """End the lease of the run, as time does."""
    with closing(sqlite3.connect(bench.root / "ems.db")) as connection, connection:
        connection.execute("UPDATE run SET lease_until = '2020-01-01 00:00:00'")


def storing_left(bench: Bench, run_dir: Path) -> None:
    """The job has ended, and its agent was killed with half of the rows in the spool."""
    agent = bench.start(run_dir)
    half(run_dir, agent)
    eventually(lambda: bench.row().rows_stored)
    with locked(bench):
        go(run_dir)
        eventually((run_dir / "exit.json").exists)
        agent.kill()
        agent.wait()


def test_rows_of_a_command_are_of_one_run_also_when_another_machine_ran_in_between(bench: Bench) -> None:
    run_dir = bench.new()
    storing_left(bench, run_dir)
    claim = bench.database.claim("e1", agent="another machine", lease_s=0)
    assert claim is None  # while the first one's lease holds
    lapse(bench)
    claim = bench.database.claim("e1", agent="another machine", lease_s=0)
    rows = Batch(array("q", [0]), array("q", [0]), (Column("n", "int64", [-1]),), replaces=(0,))
    bench.database.store(claim, rows)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_nothing_of_an_outdated_run_is_stored_after_a_cancellation(bench: Bench) -> None:
    """Of a command whose agent was cut off, when another machine has run since and nobody is to compute any more."""
    run_dir = bench.new()
    storing_left(bench, run_dir)
    (run_dir / "exit.json").unlink()
    lapse(bench)
    claim = bench.database.claim("e1", agent="another machine", lease_s=3600)
    rows = Batch(array("q", [0]), array("q", [0]), (Column("n", "int64", [-1]),), replaces=(0,))
    bench.database.store(claim, rows)
    bench.database.request_cancel("e1")
    lapse(bench)
    assert bench.database.claim("e1", agent=agent_name(run_dir), lease_s=3600).cancel  # by an agent that died at once
    lapse(bench)
    row = bench.run(run_dir)
    assert (row.state, bench.values()["n"]) == (State.CANCELLED, [-1])
    assert list(run_dir.glob("spool*")) == []


@pytest.mark.parametrize("file", ["exit.json", "batch"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"rows": 1, "state": "lost"}'])
def test_what_only_was_to_be_stored_is_run_again_where_it_is_damaged(bench: Bench, file: str, content: bytes) -> None:
    run_dir = bench.new()
    storing_left(bench, run_dir)
    batch = sorted((run_dir / "spool-1").iterdir())[0]
    (run_dir / file if file == "exit.json" else batch).write_bytes(content)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_a_job_that_ran_again_as_rows_were_lost_is_not_run_once_more(bench: Bench) -> None:
    run_dir = bench.new()
    storing_left(bench, run_dir)
    sorted((run_dir / "spool-1").iterdir())[0].write_bytes(b"")
    for name in ("half", "go"):
        (run_dir / name).unlink()
    storing_left(bench, run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_a_database_that_was_set_back_has_the_command_run_again(bench: Bench) -> None:
    """Its copy is from before the last rows were stored; what waits in the spool is not all of them."""
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    eventually(lambda: bench.row().rows_stored == 100)
    agent.kill()
    agent.wait()
    with closing(sqlite3.connect(bench.root / "ems.db")) as connection, connection:
        connection.execute("DELETE FROM r WHERE n >= 50")
        connection.execute("UPDATE experiment SET rows_stored = 50")
    Spool(run_dir / "spool-1").write(Batch(array("q", [0]), array("q", [100]), (Column("n", "int64", [100]),)))
    outcome = {"rows": 101, "state": "succeeded", "points_done": 1, "points_failed": 0}
    (run_dir / "exit.json").write_text(json.dumps(outcome))
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_a_cancellation_that_no_agent_heard_holds(bench: Bench) -> None:
    """What a killed agent had in its spool is stored, and nothing is computed."""
    run_dir = bench.new()
    storing_left(bench, run_dir)
    (run_dir / "exit.json").unlink()  # as if it had been killed a moment before
    assert bench.database.request_cancel("e1").state is State.RUNNING
    row = bench.run(run_dir)
    assert (row.state, row.attempt, row.error) == (State.CANCELLED, 2, "Cancelled on request.")
    assert bench.values() == ROWS and (run_dir / "starts").read_text() == "x"
    bench.database.reopen("e1")
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS and (run_dir / "starts").read_text() == "xx"


@pytest.mark.parametrize("victims", ["agent", "agent and keeper"])
def test_after_kill_9_another_agent_brings_the_same_rows(bench: Bench, victims: str) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    (command,) = [p for p in family(run_dir) if "job.py" in p.cmdline()]
    if victims == "agent and keeper":
        agent.send_signal(signal.SIGSTOP)
        command.parent().kill()
    agent.kill()
    agent.wait()
    if victims == "agent":
        eventually(lambda: family(run_dir) == [])
    else:
        assert command.is_running()
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert family(run_dir) == []
    assert bench.values() == ROWS
    assert (run_dir / "starts").read_text() == "xx"


def test_an_agent_that_hangs_is_replaced(bench: Bench) -> None:
    run_dir = bench.new(lease_s=1.0)
    zombie = bench.start(run_dir)
    half(run_dir, zombie)
    pause(zombie, bench)
    eventually(lambda: bench.row().state is State.LOST)
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(PATIENCE_S) == -signal.SIGKILL
    assert bench.values() == ROWS


def test_a_zombie_in_another_folder_is_fenced_out(bench: Bench) -> None:
    run_dir = bench.new(lease_s=1.0)
    elsewhere = bench.prepare(bench.root / "elsewhere", JOB.replace("n / 7", "n / 9"))
    zombie = bench.start(run_dir)
    half(run_dir, zombie)
    pause(zombie, bench)
    eventually(lambda: bench.row().state is State.LOST)
    go(elsewhere)
    assert bench.run(elsewhere).state is State.SUCCEEDED
    zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(PATIENCE_S) == 0
    assert family(run_dir) == []
    assert bench.values() == {"n": ROWS["n"], "x": [n / 9 for n in range(200)]}
    assert bench.row().attempt == 2


def test_an_agent_that_is_told_to_stop_lets_go_at_once(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    agent.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert agent.poll() is None, (run_dir / "agent.log").read_text()
    agent.terminate()
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.LOST
    assert family(run_dir) == []
    go(run_dir)
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert bench.values() == ROWS


def test_a_large_result_and_parquet_come_through_a_small_spool(bench: Bench) -> None:
    code = """
import os, pyarrow as pa, pyarrow.parquet as pq
results = os.environ["EMS_RESULTS_DIR"]
with open(results + "/a.csv", "w") as file:
    file.write("n\\n" + "".join(f"{n}\\n" for n in range(30_000)))
pq.write_table(pa.table({"n": pa.array(range(30_000, 35_000))}), results + "/b.parquet")
"""
    row = bench.run(bench.new(code, spool_limit_mb=0.001))
    assert (row.state, row.error) == (State.SUCCEEDED, "")
    assert sorted(bench.values()["n"]) == list(range(35_000))


def test_a_folder_without_a_description_is_a_users_mistake(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "ems.node", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path / 'agent.json'} does not describe a run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    config = AgentConfig("e", "sqlite:///ems.db", "/lab", "/lab/b.zip", "/env", spool_limit_mb=1.5)
    assert not AgentConfig.exists(tmp_path / "run")
    config.write(tmp_path / "run")
    assert AgentConfig.exists(tmp_path / "run")
    assert AgentConfig.read(tmp_path / "run") == config
    assert json.loads((tmp_path / "run" / "agent.json").read_text())["lease_s"] == 30.0


def test_a_folders_agents_have_one_name(tmp_path: Path) -> None:
    name = agent_name(tmp_path)
    assert agent_name(tmp_path) == name
    assert name.startswith(os.uname().nodename + ":")
    (tmp_path / "other").mkdir()
    assert agent_name(tmp_path / "other") != name


def test_a_copy_of_a_folder_has_other_agents_and_a_moved_one_the_same(tmp_path: Path) -> None:
    """So no copy takes the claim of a run that goes on in the original."""
    (tmp_path / "run").mkdir()
    name = agent_name(tmp_path / "run")
    subprocess.run(["cp", "-a", tmp_path / "run", tmp_path / "copy"], check=True)
    assert agent_name(tmp_path / "copy") != name
    assert agent_name((tmp_path / "run").rename(tmp_path / "moved")) == name


def test_agents_of_a_copied_folder_leave_a_run_alone(bench: Bench) -> None:
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    subprocess.run(["cp", "-a", run_dir, bench.root / "copy"], check=True)
    assert bench.start(bench.root / "copy").wait(PATIENCE_S) == 0
    go(run_dir)
    assert agent.wait(PATIENCE_S) == 0
    assert (bench.row().state, bench.row().attempt, bench.values()) == (State.SUCCEEDED, 1, ROWS)


@pytest.mark.parametrize("content", [b"", b"lap", b"\xff", b"two words:0123456789ab"])
def test_a_damaged_name_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "agent.id").write_bytes(content)
    name = agent_name(tmp_path)
    assert agent_name(tmp_path) == name and re.fullmatch(r"[^\s:]+:[0-9a-f]{12}-[0-9a-f]{8}", name)


def test_an_agent_whose_run_is_over_and_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "LEAVES_S", 0.5)
    run_dir = bench.new()
    agent = bench.start(run_dir)
    half(run_dir, agent)
    pause(agent, bench)
    lapse(bench)
    assert bench.database.request_cancel("e1").state is State.CANCELLED
    lock.dismiss(run_dir)
    assert agent.wait(PATIENCE_S) == -signal.SIGKILL
    eventually(lambda: family(run_dir) == [])
    lock.dismiss(run_dir)
