from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ems.databases import Outcome, State
from ems.node.agent.agent import AgentConfig
from ems.provenance import bundle
from ems.spool.batch import Batch, Column
from ems.spool.folder import read
from ems.stack import sweep_choice
from ems.stack.models import ExperimentSpec
from tests.node.bench import Bench, bench, family, lapse, locked
from tests.processes import PATIENCE_S, eventually, having, matching

__all__ = ["bench"]

POINTS = 40
RESULTS: Mapping[str, object] = {"table": "r"}

# Each call is noted outside of the code. Every tenth point fails while the file `trouble` is there; the last half waits
# for the file `go` while `wait` is there.
CODE = """
import os, pathlib, time
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent
def f(x):
    with open(run_dir / "calls", "a") as calls:
        calls.write(f"{x}\\n")
    while x >= 20 and (run_dir / "wait").exists() and not (run_dir / "go").exists():
        time.sleep(0.02)
    if x % 10 == 3 and (run_dir / "trouble").exists():
        raise ValueError(f"trouble at {x}")
    time.sleep(0.05)
    return {"y": x / 7} if x != 5 else None
"""


class Sweeping:
    """A sweep on a bench, not yet begun."""

    env: Mapping[str, str] = {}

    def __init__(
        self,
        bench: Bench,
        *files: str,
        code: str = CODE,
        points: int = POINTS,
        workers: int = 1,
        max_hours: float | None = None,
        job: Mapping[str, object] = {},
        results: Mapping[str, object] | str = RESULTS,
        **config: float,
    ) -> None:
        self.bench, self.points, self.results = bench, points, results
        spec = self._spec(job, workers)
        kept = sweep_choice.kept(spec.job.model_dump(mode="json"))
        self.run_dir = bench.register(max_hours=max_hours, points=kept, spec=spec)
        self.run_dir.mkdir(parents=True)
        for name in files:
            self.make(name)
        self.package = self._bundle(code, spec)
        times = {"beat_s": 0.1, "grace_s": 3.0, **config}
        AgentConfig("e1", "sqlite:///ems.db", str(bench.root), str(self.package), sys.prefix, **times).write(
            self.run_dir
        )

    def _spec(self, options: Mapping[str, object], workers: int) -> ExperimentSpec:
        job = {"function": "job:f", "sweep": {"x": {"range": [0, self.points - 1, 1]}}, **options}
        fields = {"project": "p", "experimenter": "researcher", "funding": "f", "environment": "env", "env": self.env}
        place = {"cluster": {"kind": "laptop", "workers": workers}}
        return ExperimentSpec.model_validate({**fields, **place, "job": job, "results": self.results})

    def _bundle(self, code: str, spec: ExperimentSpec) -> Path:
        aside = self.run_dir / "aside.zip"
        with zipfile.ZipFile(aside, "w") as archive:
            archive.writestr("code/job.py", code)
            archive.writestr("spec.json", spec.model_dump_json())
            archive.writestr("ems.zip", bundle._node_code())
        return aside.rename(self.run_dir / f"{hashlib.sha256(aside.read_bytes()).hexdigest()}.zip")

    def make(self, name: str) -> None:
        (self.run_dir / name).touch()

    def calls(self) -> Counter[int]:
        file = self.run_dir / "calls"
        return Counter(map(int, file.read_text().split())) if file.exists() else Counter()

    def computed(self) -> list[int]:
        """The points that have rows, or are noted to have none."""
        known = self.bench.database.points("e1")
        return [point for state, points in known if state in {"stored", "empty"} for point in points]

    def stored(self) -> list[int]:
        return list(self.bench.values().get("x", []))

    def spooled(self) -> list[int]:
        """Not by a `Spool`: that would take away what the driver is just writing."""
        files = sorted(matching(self.run_dir, "spool-*/*.batch"))
        return [point for path in files for point in read(path).replaces]

    def process(self, word: str) -> psutil.Process:
        (found,) = having(word, family(self.run_dir))
        return found

    def run(self) -> tuple[State, int, int]:
        row = self.bench.run(self.run_dir)
        return row.state, row.points_done, row.points_failed

    def failed(self) -> list[int]:
        return [mark.point for mark in self.bench.database.failures("e1")]


ROWS = [x for x in range(POINTS) if x != 5]
TROUBLED = [3, 13, 23, 33]


@pytest.mark.parametrize(
    ("max_failures", "state", "error"),
    [
        (None, State.FAILED, "4 points failed: ValueError: trouble at 3"),
        (4, State.SUCCEEDED, ""),
        (1, State.FAILED, "than"),
    ],
)
def test_max_failures_decides_what_becomes_of_a_sweep_with_failed_points(
    bench: Bench, max_failures: int | None, state: State, error: str
) -> None:
    sweep = Sweeping(bench, "trouble", job={"max_failures": max_failures})
    assert sweep.run()[0] is state
    row = bench.row()
    assert error in row.error
    assert sweep.failed() == TROUBLED[: row.points_failed]
    assert row.points_done + row.points_failed == sum(sweep.calls().values())
    if max_failures == 1:
        assert row.points_failed >= 2 and row.points_done < POINTS - len(TROUBLED)
    else:
        assert (row.points_done, row.points_failed) == (36, 4)
        assert sweep.stored() == [x for x in ROWS if x not in TROUBLED]
    assert family(sweep.run_dir) == []


def test_another_attempt_computes_just_what_failed(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble")
    assert sweep.run() == (State.FAILED, 36, 4)
    (sweep.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert (sweep.stored(), sweep.failed()) == (ROWS, [])
    assert sweep.calls() == Counter(range(POINTS)) + Counter(TROUBLED)
    assert (sweep.run_dir / "job.log").read_text() == (
        "--- attempt 1 ---\nems: 40 points to compute on 1 workers\nems: 40 points done, 4 of them failed\n"
        "--- attempt 2 ---\nems: 4 points to compute on 1 workers\nems: 4 points done, 0 of them failed\n"
    )


BEYOND_DOUBLES = """
import os, pathlib
trouble = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent / "trouble"
def f(x):
    if x > 0 and trouble.exists():
        raise ValueError(x)
    return {"k": 2**53 + 1 if x == 0 else x if x < 3 else 0.5, "d": 0.5 if x else 1}
"""


def test_another_attempt_knows_that_a_column_has_integers_beyond_the_doubles(bench: Bench) -> None:
    """A fraction in it then is the fault of its point, and no fault of storing; a column of small ones takes it."""
    sweep = Sweeping(bench, "trouble", code=BEYOND_DOUBLES, points=4)
    assert sweep.run() == (State.FAILED, 1, 3)
    (sweep.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert sweep.run() == (State.FAILED, 3, 1)
    assert bench.values() == {"x": [0, 1, 2], "k": [2**53 + 1, 1, 2], "d": [1.0, 0.5, 0.5]}
    (failure,) = bench.database.failures("e1")
    assert failure.point == 3 and "Column 'k' was int64 beyond the exact doubles so far" in failure.error


def test_a_second_attempt_counts_what_fails_in_it_and_still_knows_what_failed_in_the_first(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble", job={"max_failures": 0})
    state, done, failed = sweep.run()
    assert state is State.FAILED and failed
    sweep.make("wait")
    bench.database.reopen("e1")
    agent = bench.start(sweep.run_dir)
    eventually(lambda: having("driver", family(sweep.run_dir)))
    seen = bench.row()
    eventually(lambda: bench.row().heartbeat_at > seen.heartbeat_at)  # it has counted
    assert (bench.row().points_done, bench.row().points_failed) == (done, 0)
    bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_failed) == (State.CANCELLED, len(sweep.failed()))
    assert row.points_done == len(sweep.computed())


def test_the_heir_of_a_crash_leaves_failed_points_alone(bench: Bench) -> None:
    sweep = Sweeping(bench, "trouble", "wait")
    agent = bench.start(sweep.run_dir)
    eventually(lambda: {3, 13} <= set(sweep.failed()))
    agent.kill()
    agent.wait()
    (sweep.run_dir / "trouble").unlink()
    sweep.make("go")
    assert sweep.run() == (State.FAILED, 38, 2)
    assert sweep.failed() == [3, 13] and sweep.stored() == [x for x in ROWS if x not in {3, 13}]
    assert sweep.calls()[3] == sweep.calls()[13] == 1
    bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert sweep.calls()[3] == sweep.calls()[13] == 2


@pytest.mark.parametrize(("files", "outcome"), [((), (State.SUCCEEDED, 40, 0)), (("trouble",), (State.FAILED, 36, 4))])
def test_an_heir_that_finds_all_computed_starts_no_driver(
    bench: Bench, files: tuple[str, ...], outcome: tuple[State, int, int]
) -> None:
    sweep = Sweeping(bench, *files)
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    with locked(bench):
        eventually(lambda: "40 points done" in (sweep.run_dir / "job.log").read_text())
        agent.kill()
        agent.wait()
    assert not (sweep.run_dir / "exit.json").exists()
    assert sweep.run() == outcome
    assert bench.row().attempt == 2 and "attempt 2" not in (sweep.run_dir / "job.log").read_text()
    assert sweep.calls() == Counter(range(POINTS))


def test_what_a_killed_agent_left_after_the_deadline_is_stored(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait", max_hours=15 / 3600)
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    with locked(bench):
        sweep.make("go")
        eventually(sweep.spooled)
        agent.kill()
        agent.wait()
    eventually(lambda: bench.row().state is State.EXPIRED)
    assert (bench.row().machines, bench.row().attempt) == (1, 1) and sweep.spooled()
    calls = sweep.calls()
    computed = len({*sweep.stored(), *sweep.spooled()} | {5} & calls.keys())
    assert sweep.run() == (State.EXPIRED, computed, 0)
    assert (bench.row().machines, bench.row().attempt) == (0, 1) and sweep.spooled() == []
    assert sweep.calls() == calls and len(sweep.stored()) == bench.row().rows_stored


def test_kill_9_of_the_agent_costs_only_what_was_not_in_the_spool(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    agent = bench.start(sweep.run_dir)
    eventually(lambda: bench.row().points_done >= 1)
    with locked(bench):
        sweep.make("go")
        eventually(sweep.spooled)
        agent.kill()
        agent.wait()
    eventually(lambda: family(sweep.run_dir) == [])
    kept = {*sweep.stored(), *sweep.spooled()}
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert sweep.stored() == ROWS
    calls = sweep.calls()
    assert set(calls) == set(range(POINTS)) and all(calls[x] == 1 for x in kept)


def test_an_heir_of_an_agent_that_had_only_to_store_counts_all_of_it(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    keeper = sweep.process("ems.node.job.keeper")
    keeper.suspend()
    row = bench.database.request_cancel("e1")
    eventually(lambda: bench.row().heartbeat_at > row.heartbeat_at)  # so the agent has heard of it
    with locked(bench):
        keeper.resume()
        eventually((sweep.run_dir / "exit.json").exists)
        agent.kill()
        agent.wait()
    calls = sweep.calls()
    assert sweep.run() == (State.CANCELLED, len({*sweep.stored(), 5} & calls.keys()), 0)
    assert sweep.calls() == calls


def cut_off(sweep: Sweeping, *, computed: int) -> None:
    """The agent is killed after its driver has spooled some more points than are stored."""
    agent = sweep.bench.start(sweep.run_dir)
    eventually(sweep.stored)
    with locked(sweep.bench):
        sweep.make("go")
        eventually(lambda: len(sweep.spooled()) >= computed)
        agent.kill()
        agent.wait()
    eventually(lambda: family(sweep.run_dir) == [])


def test_a_cancellation_that_no_agent_heard_holds_and_what_was_spooled_is_stored(bench: Bench) -> None:
    """The run is asked to stop and its agent dies at once: the heir stores, computes nothing, and ends as cancelled."""
    sweep = Sweeping(bench, "wait")
    cut_off(sweep, computed=3)
    kept, calls = {*sweep.stored(), *sweep.spooled()}, sweep.calls()
    sweep.package.unlink()  # nothing is to be computed
    assert bench.database.request_cancel("e1").state is State.RUNNING
    assert sweep.run() == (State.CANCELLED, len({*kept, 5} & calls.keys()), 0)
    assert (set(sweep.stored()), sweep.calls()) == (kept - {5}, calls)
    assert sweep.run()[0] is State.CANCELLED and bench.row().attempt == 2


def test_what_a_zombie_left_gives_way_to_what_was_computed_since(bench: Bench) -> None:
    """Failures of an agent that was cut off, with rows of another machine since."""
    sweep = Sweeping(bench, "trouble", "wait")
    cut_off(sweep, computed=10)
    spooled = sweep.spooled()
    assert 33 in spooled or 23 in spooled
    lapse(bench)
    claim = bench.database.claim("e1", agent="another machine", lease_s=3600)
    since = [x for x in ROWS if x not in sweep.stored() and x != 13]
    values = Column("x", "int64", since), Column("y", "float64", [0.5] * len(since))
    bench.database.store(claim, Batch(array("q", since), array("q", [0] * len(since)), values, tuple(since)))
    bench.database.release(claim, Outcome(State.FAILED, 38, 1, error="1 point failed"))
    (sweep.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    y = dict(zip(bench.values()["x"], bench.values()["y"], strict=True))
    assert sorted(y) == ROWS and all(y[x] == 0.5 for x in since)


def test_after_a_cancellation_and_a_retry_old_failures_are_computed_again(bench: Bench) -> None:
    """On one machine: killed with failures in the spool, stopped, then told to go on."""
    sweep = Sweeping(bench, "trouble", "wait")
    cut_off(sweep, computed=15)
    lapse(bench)
    assert bench.database.request_cancel("e1").state is State.CANCELLED
    (sweep.run_dir / "trouble").unlink()
    bench.database.reopen("e1")
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert (sweep.stored(), sweep.failed()) == (ROWS, [])


def test_a_bundle_that_disappears_during_the_run_is_not_missed(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait", job={"max_failures": 2})
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    sweep.package.unlink()
    sweep.make("go")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.SUCCEEDED and sweep.stored() == ROWS


def test_a_lost_bundle_costs_nothing_of_what_was_computed(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    cut_off(sweep, computed=3)
    kept, bytes_of = {*sweep.stored(), *sweep.spooled()}, sweep.package.read_bytes()
    sweep.package.unlink()
    assert bench.start(sweep.run_dir).wait(PATIENCE_S) == 3
    assert {*sweep.stored(), *sweep.spooled()} == kept
    sweep.package.write_bytes(bytes_of)
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert all(sweep.calls()[x] == 1 for x in kept)


FOREIGN = ["copy.batch", "._00000001.batch", "00000001.batch.bak", "1.batch", "x.tmp", ".DS_Store"]


@pytest.mark.parametrize("damage", [b"", b"EMSBAT01", b"something else", None])
def test_a_damaged_batch_is_set_aside_and_its_points_are_computed_again(bench: Bench, damage: bytes | None) -> None:
    """None: cut in half. Beside it lie files and folders that are not the spool's."""
    sweep = Sweeping(bench, "wait")
    cut_off(sweep, computed=3)
    folder = sweep.run_dir / "spool-1"
    for name in FOREIGN:
        (folder / name).write_bytes(b"foreign")
    (folder / "y.tmp").mkdir()
    (folder / "00009999.batch").mkdir()
    victim = sorted(folder.glob("0*.batch"))[0]
    lost = set(read(victim).replaces)
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2] if damage is None else damage)
    assert sweep.run() == (State.SUCCEEDED, 40, 0)
    assert sweep.stored() == ROWS
    assert all(sweep.calls()[x] == 2 for x in lost)
    assert victim.with_name(f"{victim.name}.damaged").exists() and not victim.exists()
    assert "a batch was damaged, so its points are computed again" in (sweep.run_dir / "job.log").read_text()
    assert all((folder / name).read_bytes() == b"foreign" for name in FOREIGN)


@contextmanager
def all_spooled(sweep: Sweeping) -> Iterator[subprocess.Popen[bytes]]:
    """The agent of a sweep whose points are all computed and, in the block, not all stored."""
    agent = sweep.bench.start(sweep.run_dir)
    eventually(sweep.stored)
    with locked(sweep.bench):
        sweep.make("go")
        eventually(lambda: "40 points done" in (sweep.run_dir / "job.log").read_text())
        yield agent


def test_a_batch_that_is_damaged_while_the_run_goes_on_is_computed_again_too(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    with all_spooled(sweep) as agent:
        last = sorted(sweep.run_dir.glob("spool-1/*.batch"))[-1]
        lost = set(read(last).replaces)
        last.write_bytes(b"")
    assert agent.wait(PATIENCE_S) == 0
    assert (bench.row().state, sweep.stored()) == (State.SUCCEEDED, ROWS)
    assert {x for x, times in sweep.calls().items() if times == 2} == lost


def test_a_database_that_is_away_in_mid_run_is_waited_for(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    with all_spooled(sweep) as agent:
        assert agent.poll() is None
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_done, row.rows_stored, row.attempt) == (State.SUCCEEDED, 40, 39, 1)
    assert sweep.stored() == ROWS and sweep.calls() == Counter(range(POINTS))


def test_a_killed_driver_fails_the_run_and_leaves_no_process(bench: Bench) -> None:
    sweep = Sweeping(bench, "wait")
    agent = bench.start(sweep.run_dir)
    eventually(sweep.stored)
    sweep.process("ems.node.driver.driver").kill()
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert row.state is State.FAILED and "the sweep's driver: killed by signal 9" in row.error
    assert row.points_done == len(sweep.computed())
    assert family(sweep.run_dir) == []


def test_files_that_a_function_leaves_are_kept(bench: Bench) -> None:
    """In the working directory that all workers share, and in the folder of results files, which it does not need."""
    code = (
        "import os\ndef f(x):\n    open(f'plot-{x}.png', 'w').write('x' * x)\n"
        "    open(os.environ['EMS_RESULTS_DIR'] + '/a.csv', 'a').write('x')\n    return {'y': x}\n"
    )
    sweep = Sweeping(bench, code=code, points=3)
    row = bench.run(sweep.run_dir)
    assert (row.state, row.rows_stored) == (State.SUCCEEDED, 3)
    found = {file["name"]: file["bytes"] for file in json.loads(row.files_left)}
    assert found == {"plot-0.png": 0, "plot-1.png": 1, "plot-2.png": 2, "EMS_RESULTS_DIR/a.csv": 3}


def test_rows_that_nobody_wants_end_the_run_at_the_first_point(bench: Bench) -> None:
    sweeping = Sweeping(bench, points=1000, results="none")
    row = bench.run(sweeping.run_dir)
    assert row.state is State.FAILED and row.error == (
        "Point 0 has rows, but the stack file says `results: none`: name a table for them, as results: "
        "{table: NAME}, or return no rows."
    )
    assert list(sweeping.calls()) == [0]
