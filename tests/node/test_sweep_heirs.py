"""What a sweep's next agent makes of what a killed one left: failures, spooled batches, damaged ones."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest

from ems.databases import Outcome, State
from ems.spool.batch import Batch, Column
from ems.spool.folder import read
from tests.node.bench import Bench, bench, family, lapse, locked
from tests.node.sweeping import POINTS, ROWS, Sweeping, cut_off
from tests.processes import PATIENCE_S, eventually

__all__ = ["bench"]


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
