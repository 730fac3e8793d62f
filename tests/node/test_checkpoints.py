"""What a job keeps from one run to the next, and what becomes of it however a run ends."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from ems.databases import State
from ems.node.agent.agent import GOES_ON
from ems.node.job import checkpoints
from tests.node.bench import Bench, bench, family
from tests.node.test_command_sweep import Programs
from tests.processes import PATIENCE_S, eventually

__all__ = ["bench"]

STEPS = 12
# Adds up 1/1, 1/2, … and saves, with its rows, after each step. It stops at the step that the file `wait` names, notes
# each start and each SIGTERM, and ends on SIGTERM with the exit code that the file `code` has.
JOB = """
import json, os, pathlib, signal, sys, time
results, folder = (pathlib.Path(os.environ[name]) for name in ("EMS_RESULTS_DIR", "EMS_CHECKPOINT_DIR"))
run_dir = results.parent
def told(*_):
    with open(run_dir / "told", "a") as file:
        file.write("x")
    sys.exit(int((run_dir / "code").read_text()))
if (run_dir / "code").exists():
    signal.signal(signal.SIGTERM, told)
state = folder / "state.json"
rows, total = json.loads(state.read_text()) if state.exists() else ([], 0.0)
with open(run_dir / "starts", "a") as starts:
    starts.write(f"{len(rows)} ")
with open(results / "rows.csv", "w", buffering=1) as file:
    print("n,total", file=file)
    for n, so_far in rows:
        print(f"{n},{so_far!r}", file=file)
    for n in range(len(rows), 12):
        wait = run_dir / "wait"
        if wait.exists() and int(wait.read_text()) == n:
            (run_dir / f"at-{n}").touch()
            time.sleep(600)
        total += 1 / (n + 1)
        rows.append([n, total])
        (folder / "state.tmp").write_text(json.dumps([rows, total]))
        (folder / "state.tmp").rename(state)
        print(f"{n},{total!r}", file=file)
if (run_dir / "fails").exists():
    (run_dir / "fails").unlink()
    sys.exit("in trouble")
"""


def wait_at(run_dir: Path, step: int) -> None:
    """Have the job stop there, from its next start on."""
    (run_dir / "wait").write_text(str(step))


def reached(run_dir: Path, step: int) -> None:
    eventually((run_dir / f"at-{step}").exists)


def starts(run_dir: Path) -> list[int]:
    """How many steps each start of the job found done."""
    return [int(word) for word in (run_dir / "starts").read_text().split()]


def assert_undisturbed(bench: Bench, run_dir: Path) -> None:
    """The rows are those of a run that nothing happened to, to the last bit, and nothing is kept any more."""
    total, expected = 0.0, []
    for n in range(STEPS):
        total += 1 / (n + 1)
        expected.append(total)
    assert bench.values() == {"n": list(range(STEPS)), "total": expected}
    assert bench.row().state is State.SUCCEEDED
    assert list(run_dir.glob("checkpoint*")) == [] and bench.row().files_left == ""


def test_a_job_that_is_killed_twice_goes_on_from_its_checkpoint(bench: Bench) -> None:
    run_dir = bench.new(JOB)
    wait_at(run_dir, 4)
    agent = bench.start(run_dir)
    reached(run_dir, 4)
    wait_at(run_dir, 9)
    agent.kill()  # the job ends with it
    agent.wait()
    heir = bench.start(run_dir)
    reached(run_dir, 9)
    (run_dir / "wait").unlink()
    for process in [psutil.Process(heir.pid), *family(run_dir)]:
        process.kill()
    heir.wait()
    assert bench.run(run_dir).attempt == 3
    assert starts(run_dir) == [0, 4, 9]
    assert_undisturbed(bench, run_dir)


@pytest.mark.parametrize("code", [0, 3, 75, 143])
@pytest.mark.parametrize("whom", ["agent", "all"])
def test_whatever_its_exit_code_is_a_job_that_was_told_to_end_goes_on(bench: Bench, code: int, whom: str) -> None:
    """Slurm tells the agent before the time limit, and all processes when it takes a job away. Each hears it once."""
    run_dir = bench.new(JOB)
    (run_dir / "code").write_text(str(code))
    wait_at(run_dir, 5)
    agent = bench.start(run_dir)
    reached(run_dir, 5)
    (run_dir / "wait").unlink()
    for process in reversed(family(run_dir)) if whom == "all" else ():
        process.terminate()
    agent.terminate()
    assert agent.wait(PATIENCE_S) == GOES_ON
    assert (bench.row().state, bench.row().error) == (State.LOST, "The agent was told to stop (SIGTERM).")
    assert bench.values()["n"] == list(range(5))  # what it had written is stored meanwhile
    assert (run_dir / "told").read_text() == "x"
    assert [path.name for path in run_dir.glob("checkpoint*")] == ["checkpoint"]
    bench.run(run_dir)
    assert starts(run_dir) == [0, 5]
    assert_undisturbed(bench, run_dir)


@pytest.mark.parametrize("how", ["failed", "cancelled", "expired"])
def test_a_run_that_ended_otherwise_keeps_it_for_a_retry(bench: Bench, how: str) -> None:
    run_dir = bench.new(JOB, max_hours=6 / 3600 if how == "expired" else None)
    if how == "failed":
        (run_dir / "fails").touch()
    else:
        wait_at(run_dir, 7)
    agent = bench.start(run_dir)
    if how == "cancelled":
        reached(run_dir, 7)
        bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state == how
    (left,) = json.loads(bench.row().files_left)
    assert (left["name"], left["files"], left["attempt"]) == ("EMS_CHECKPOINT_DIR/", 1, 1)
    (run_dir / "wait").unlink(missing_ok=True)
    if how == "expired":
        assert "Raise `limits: max_hours`" in bench.row().error
        bench.register(max_hours=1.0)
    else:
        bench.database.reopen("e1")
    bench.run(run_dir)
    assert starts(run_dir) == [0, STEPS if how == "failed" else 7]
    assert_undisturbed(bench, run_dir)


def test_hours_that_are_raised_while_a_job_runs_count_for_it(bench: Bench) -> None:
    run_dir = bench.new(JOB, max_hours=8 / 3600)
    wait_at(run_dir, 3)
    agent = bench.start(run_dir)
    reached(run_dir, 3)
    bench.register(max_hours=1.0)
    with pytest.raises(subprocess.TimeoutExpired):
        agent.wait(10)
    bench.database.request_cancel("e1")
    assert agent.wait(PATIENCE_S) == 0
    assert bench.row().state is State.CANCELLED


def test_time_without_a_run_does_not_count(bench: Bench) -> None:
    """As in the queue of a Slurm machine, after a run that was told to stop and after one that was killed."""
    run_dir = bench.new(JOB, max_hours=10 / 3600, lease_s=1.0)
    wait_at(run_dir, 2)
    agent = bench.start(run_dir)
    reached(run_dir, 2)
    agent.terminate()
    agent.wait(PATIENCE_S)
    first = bench.row()
    (run_dir / "at-2").unlink()
    agent = bench.start(run_dir)
    reached(run_dir, 2)
    for process in [psutil.Process(agent.pid), *family(run_dir)]:
        process.kill()
    eventually(lambda: bench.row().state is State.LOST)
    assert first.deadline_at and first.state is State.LOST
    eventually(lambda: bench.row().deadline_at < datetime.now(UTC))
    assert bench.row().state is State.LOST
    (run_dir / "wait").unlink()
    assert bench.run(run_dir).took_s < 10
    assert_undisturbed(bench, run_dir)


# Points of a grid over a program

POINT = """
import json, os, pathlib, sys
folder, x = pathlib.Path(os.environ["EMS_CHECKPOINT_DIR"]), int(sys.argv[1])
tries = json.loads((folder / "tries").read_text()) if (folder / "tries").exists() else 0
(folder / "tries").write_text(json.dumps(tries + 1))
if x == 3 and tries < 3:
    sys.exit("not yet")
with open(os.environ["EMS_RESULTS_DIR"] + "/rows.csv", "w") as file:
    file.write(f"y\\n{10 * x + tries}\\n")
"""


def test_each_point_of_a_grid_over_a_program_has_its_own(bench: Bench) -> None:
    programs = Programs(bench, ["python", "job.py", "{x}"], POINT, points=6, retries=1)
    assert bench.run(programs.run_dir).state is State.FAILED
    assert [path.name for path in (programs.run_dir / "checkpoint").iterdir()] == ["point-3"]
    bench.database.reopen("e1")
    bench.run(programs.run_dir)
    assert bench.row().state is State.SUCCEEDED
    assert bench.values()["y"] == [0, 10, 20, 33, 40, 50]
    assert list(programs.run_dir.glob("checkpoint*")) == []


# The folder


def save(folder: Path, text: str) -> None:
    (folder / "state").write_text(text)


def saved(folder: Path) -> str:
    return (folder / "state").read_text()


def test_of_a_job_that_was_seen_to_end_the_next_run_has_the_same_folder(tmp_path: Path) -> None:
    first = checkpoints.take(tmp_path, 1, alone=False)
    assert list(first.iterdir()) == []
    save(first, "1")
    inode = first.stat().st_ino
    checkpoints.put_back(first)
    second = checkpoints.take(tmp_path, 2, alone=False)
    assert (saved(second), second.stat().st_ino, first.exists()) == ("1", inode, False)


def test_a_job_that_lives_on_unseen_reaches_nothing_of_the_next_run(tmp_path: Path) -> None:
    first = checkpoints.take(tmp_path, 1, alone=False)
    save(first, "1")
    with (first / "log").open("w") as log:
        second = checkpoints.take(tmp_path, 2, alone=False)
        log.write("of the first")
    with pytest.raises(FileNotFoundError):
        save(first, "late")
    assert (saved(second), (second / "log").read_text()) == ("1", "")
    checkpoints.put_back(first)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_where_no_other_job_can_live_nothing_is_copied(tmp_path: Path) -> None:
    first = checkpoints.take(tmp_path, 1, alone=True)
    save(first, "1")
    inode = first.stat().st_ino
    again = checkpoints.take(tmp_path, 1, alone=True)  # a database that was set back gives out numbers again
    assert (again, saved(again)) == (first, "1")
    third = checkpoints.take(tmp_path, 3, alone=True)
    assert (saved(third), third.stat().st_ino) == ("1", inode)


@pytest.mark.parametrize("point", range(6))
def test_a_copy_that_is_killed_at_any_moment_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: int
) -> None:
    """Each call by which it changes names may be its last one."""
    save(checkpoints.take(tmp_path, 1, alone=False), "1")
    calls, rename = [], Path.rename

    def killed(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) > point:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with suppress(KeyboardInterrupt):
            checkpoints.take(tmp_path, 2, alone=False)
    found = checkpoints.take(tmp_path, 3, alone=False)
    assert saved(found) == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    checkpoints.forget(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_one_is_not_kept(tmp_path: Path) -> None:
    checkpoints.put_back(checkpoints.take(tmp_path, 1, alone=True))
    assert list(tmp_path.iterdir()) == []


def test_a_point_goes_from_worker_to_worker_also_from_one_that_nobody_could_end(tmp_path: Path) -> None:
    first = checkpoints.take_point(tmp_path, 5, "n1-100")
    save(first, "1")
    second = checkpoints.take_point(tmp_path, 5, "n2-200")
    with pytest.raises(FileNotFoundError):
        save(first, "late")
    save(second, "2")
    checkpoints.put_back_point(first)
    checkpoints.put_back_point(second)
    third = checkpoints.take_point(tmp_path, 5, "n1-300")
    assert saved(third) == "2"
    checkpoints.put_back_point(checkpoints.take_point(tmp_path, 6, "n1-300"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["point-5", "spare-n1-300"], "what is empty serves again"
    assert list(checkpoints.take_point(tmp_path, 7, "n1-300").iterdir()) == []
    assert saved(checkpoints.take_point(tmp_path, 5, "n1-300")) == "2"
    checkpoints.begin_points(tmp_path, lambda point: point == 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["point-7"]
