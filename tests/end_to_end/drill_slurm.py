"""What happens on a Slurm machine on a bad day, with a real one: minutes each, as root: `make drill` runs them.

Each ends in the rows of an undisturbed run, or in one clear error, and nothing is left in the queue.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.clusters.slurm_server import CPUS, SlurmServer
from tests.end_to_end.drill_faults import CLOCK
from tests.end_to_end.test_slurm import SlurmUser, slurm, user, workers
from tests.processes import PATIENCE_S, eventually

__all__ = ["slurm", "user"]
pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.timeout(1800)]
CODE = """
import os, pathlib, time
def f(n):
    time.sleep(PAUSE_S)
    with open("CALLS", "a") as calls:
        calls.write(f"{n}\\n")
    return {"twice": 2 * n, "node": os.environ.get("SLURM_JOB_ID", "")}
"""


class Sweep:
    """A sweep of a function over `points` points on a Slurm machine, which notes each call."""

    def __init__(
        self, user: SlurmUser, slurm: SlurmServer, points: int, pause_s: float = 0.05, code: str = CODE
    ) -> None:
        self.user, self.slurm, self.points = user, slurm, points
        self._calls = user.root.parent / "calls"
        user.write("experiments/e/sweep.py", code.replace("PAUSE_S", str(pause_s)).replace("CALLS", str(self._calls)))

    def described(self, **more: object) -> None:
        job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, self.points, 1]}}}
        self.user.describe("s", job, **more)
        self.user.commit("A sweep")
        self.user.ems("up", "lab", "sherlock")

    def begin(self, **more: object) -> subprocess.Popen[str]:
        """`ems up`, once some points are stored."""
        self.described(**more)
        command = self.user.start("up", "s")
        self.user.wait(lambda: self.user.stored() >= 10 or command.poll() is not None)
        assert command.poll() is None, self.user.said(command)
        return command

    def stored(self, more: int = 0) -> int:
        """How many points are stored, once there are so many more."""
        before = self.user.stored()
        self.user.wait(lambda: self.user.stored() >= before + more)
        return self.user.stored()

    def calls(self) -> Counter[int]:
        return Counter(map(int, self._calls.read_text().split()))

    def head(self) -> dict[str, str]:
        """The head's job, as `squeue` has it; {} if there is none."""
        for line in self.slurm.run("squeue", "-h", "-o", "%j %i %T %N").splitlines():
            name, id, state, *nodes = line.split()
            if name.startswith("ems-") and not name.endswith("-workers"):
                return {"id": id, "state": state, "node": "".join(nodes)}
        return {}

    def hurry(self) -> None:
        """What was taken away waits for two minutes otherwise."""
        for id in self.slurm.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r").splitlines():
            if "BeginTime" in id:
                self.slurm.tried("scontrol", "update", f"jobid={id.split()[0]}", "starttime=now")

    def finish(self, command: subprocess.Popen[str]) -> None:
        give_up_at = time.monotonic() + 3 * PATIENCE_S
        while command.poll() is None:
            assert time.monotonic() < give_up_at, self.user.said(command)
            self.hurry()
            time.sleep(0.5)
        assert command.returncode == 0, self.user.said(command)

    def assert_whole(self, attempts: int | None = 1, recomputed: int = 0) -> None:
        """All rows once, none failed, nothing left in the queue; at most `recomputed` calls more than points."""
        total = sum(range(1, self.points + 1))
        assert self.user.asked("SELECT count(*), count(DISTINCT n), sum(n), sum(twice) FROM e") == [
            (self.points, self.points, total, 2 * total)
        ]
        ((state, failed, attempt),) = self.user.asked("SELECT state, points_failed, attempt FROM experiment")
        assert (state, failed) == ("succeeded", 0)
        assert attempts is None or attempt == attempts
        again = sum(self.calls().values()) - self.points
        show(f"{self.points} points, {again} computed again, {attempt} attempts")
        assert self.calls().keys() == set(range(1, self.points + 1)) and again <= recomputed
        eventually(lambda: self.slurm.run("squeue", "-h") == "")


def show(line: str) -> None:
    """Said at the end of a test that was asked for its figures (`pytest -rP`)."""
    sys.stdout.write(f"{line}\n")


def take(slurm: SlurmServer, node: str) -> str:
    """Have a job of a higher partition take all of a node for a moment; its number."""
    options = ("-A", "grant", "-p", "group", "-n1", f"-c{CPUS}", "-w", node, "-t", "2")
    return slurm.run("sbatch", "--parsable", *options, "--wrap", "sleep 0.5").strip()


def processes(sweep: Sweep, *words: str) -> list[psutil.Process]:
    return [each for each in sweep.user.processes(*words) if each.name().startswith("python")]


def test_two_thousand_points_are_computed_on_three_nodes(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=12, head={"computes": False})
    sweep = Sweep(user, slurm, 2000, 0.02)
    nodes: set[str] = set()
    command = sweep.begin()
    while command.poll() is None:
        nodes |= {node for _, node in workers(slurm)}
        time.sleep(0.2)
    sweep.finish(command)
    sweep.assert_whole()
    assert len(nodes) == 2 or len(nodes) == 3, "12 processes need two nodes"


def test_fifty_preemptions_of_workers_and_heads_lose_and_double_nothing(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["owners"], account="grant", processes_per_job=4, workers=9, sbatch=["--exclusive"])
    sweep = Sweep(user, slurm, 8000, 0.1)
    command = sweep.begin()
    chosen, heads = random.Random(15), 0
    for _ in range(50):
        user.wait(lambda: sweep.hurry() or slurm.run("squeue", "-h", "-p", "owners", "-t", "R"))
        if command.poll() is not None:
            break
        running = slurm.run("squeue", "-h", "-r", "-p", "owners", "-t", "R", "-o", "%N").split()
        node = chosen.choice(running)
        heads += sweep.head().get("node") == node
        taker = take(slurm, node)
        user.wait(lambda taker=taker: taker not in slurm.run("squeue", "-h", "-o", "%i").split())
        time.sleep(chosen.random() * 2)
    assert command.poll() is None, "it ended before it was preempted 50 times"
    sweep.finish(command)
    show(f"{heads} of them took the head")
    sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)


KILLED = {
    "agent": ("ems.clusters.slurm.head",),
    "driver": ("ems.node.driver.driver",),
    "worker": ("ems.node.driver.joining",),
    "worker process": ("ems.node.driver.worker ",),
}


@pytest.mark.parametrize("who", ["slurmd of workers", "slurmd of the head", *KILLED, "ems up"])
def test_kill_9(user: SlurmUser, slurm: SlurmServer, who: str) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, head={"computes": False})
    sweep = Sweep(user, slurm, 500, 0.1)
    command = sweep.begin()
    user.wait(lambda: workers(slurm))
    sweep.stored(10)
    if who.startswith("slurmd"):
        node = sweep.head()["node"] if "head" in who else workers(slurm)[0][1]
        slurm.kill_node(node)
        slurm.start_node(node)
    elif who == "ems up":
        command.kill()
        command.wait()
        command = user.start("up", "s")
    else:
        processes(sweep, *KILLED[who])[0].kill()
    if who == "driver":  # as where memory runs out: the run fails, and says so
        assert command.wait(PATIENCE_S) != 0 and "driver: killed by signal 9 (SIGKILL)" in user.said(command)
        command = user.start("up", "s", "--retry")
    sweep.finish(command)
    sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)


@pytest.mark.parametrize("whose", ["head", "workers", "all"])
def test_jobs_that_somebody_cancels_are_replaced(user: SlurmUser, slurm: SlurmServer, whose: str) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, head={"computes": False})
    sweep = Sweep(user, slurm, 400, 0.1)
    command = sweep.begin()
    head = sweep.head()["id"]
    ids = [id for id, _ in workers(slurm)]
    slurm.run("scancel", *{"head": [head], "workers": ids, "all": [head, *ids]}[whose])
    sweep.finish(command)
    sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)


def faked(user: SlurmUser, monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> Path:
    """A command of Slurm's that lies, also to the head: REAL in it is the true one."""
    file = user.root.parent / "fake" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("#!/bin/sh\n" + text.replace("REAL", f"/usr/bin/{name}") + "\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")
    return file


LIES = {
    "squeue is empty": ("squeue", "exit 0"),
    "squeue fails": ("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"),
    "sbatch has submitted, and times out": (
        "sbatch",
        "REAL \"$@\" > /dev/null; echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1",
    ),
    "sacct fails": ("sacct", "echo 'sacct: error: Unable to connect to slurmdbd' >&2; exit 1"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_slurm_that_lies_costs_no_row(
    user: SlurmUser, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4)
    sweep = Sweep(user, slurm, 600, 0.1)
    name, text = LIES[lie]
    true = "squeue fails" in lie  # at first: without a queue, nothing is submitted
    with monkeypatch.context() as theirs:
        liar = faked(user, theirs, name, 'exec REAL "$@"' if true else text)
        command = sweep.begin()
    liar.write_text("#!/bin/sh\n" + text.replace("REAL", f"/usr/bin/{name}") + "\n")
    sweep.finish(command)
    sweep.assert_whole()


def test_workers_that_slurm_has_no_room_for_come_in_smaller_numbers(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=1, workers=8, head={"computes": False})
    sweep = Sweep(user, slurm, 300, 0.2)
    sweep.described()
    modify = ("sacctmgr", "-iQ", "modify", "user", "root", "set")
    slurm.run(*modify, "MaxSubmitJobs=4")
    try:
        command = user.start("up", "s")
        user.wait(lambda: len(workers(slurm)) >= 2)
        sweep.finish(command)
        sweep.assert_whole()
    finally:
        slurm.run(*modify, "MaxSubmitJobs=-1")


def test_a_run_without_any_worker_fails_and_says_why(
    user: SlurmUser, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `sbatch --test-only` took is refused later, as after a change of the machine."""
    user.place(partition=["normal"], account="grant", head={"computes": False})
    sweep = Sweep(user, slurm, 300, 0.2)
    sweep.described()
    said = "sbatch: error: Batch job submission failed: Invalid qos specification"
    refused = f'case "$*" in *--test-only*) ;; *--array=*) echo "{said}" >&2; exit 1;; esac; exec REAL "$@"'
    faked(user, monkeypatch, "sbatch", refused)
    done = user.ems("up", "s", expect=None)
    assert done.returncode not in {0, 1} and "The run has no workers" in done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    eventually(lambda: slurm.run("squeue", "-h") == "")


def test_five_hundred_workers_are_declared_and_as_many_come_as_there_is_room_for(
    user: SlurmUser, slurm: SlurmServer
) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, cores=2, workers=500)
    sweep = Sweep(user, slurm, 3000, 0.02)
    command = sweep.begin()
    sweep.finish(command)
    sweep.assert_whole()


GPU = """
import os, time
def f(n):
    began = time.time()
    time.sleep(0.3)
    return {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "began": began, "ended": time.time()}
"""


def test_two_gpus_are_shared_by_three_runs(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", gpus=1, workers=1)
    user.write("experiments/e/sweep.py", GPU)
    stacks = ["a", "b", "c"]
    for number, stack in enumerate(stacks):
        own = {"range": [100 * number, 100 * number + 30, 1]}  # a point of another run would be copied, with its times
        user.describe(stack, {"function": "experiments.e.sweep:f", "sweep": {"n": own}})
    user.commit("Three runs")
    user.ems("up", "lab", "sherlock")
    user.ems("up", *stacks)
    found = user.asked("SELECT gpu, began, ended FROM e ORDER BY began")
    assert len(found) == 3 * 31 and {gpu for gpu, *_ in found} == {"0", "1"}
    for gpu in "01":
        times = [(began, ended) for here, began, ended in found if here == gpu]
        assert all(ended <= began for (_, ended), (began, _) in pairwise(times)), "a GPU was given twice"
    assert slurm.run("squeue", "-h") == ""


def test_two_clones_of_a_lab_run_the_same_stack_at_once(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4)
    sweep = Sweep(user, slurm, 400, 0.1)
    sweep.described()
    subprocess.run(["git", "clone", "-q", user.root, user.root.with_name("clone")], check=True)
    other = SlurmUser(user.root.with_name("clone"))
    try:
        other.ems("up", "lab", "sherlock")
        commands = [user.start("up", "s"), other.start("up", "s")]
        assert commands[1].wait(PATIENCE_S) == 0, other.said(commands[1])
        sweep.finish(commands[0])
        sweep.assert_whole()
        assert user.asked("SELECT count(*) FROM run") == [(1,)]
    finally:
        other.end()


ROOMS = {"space": "size=48m", "inodes": "nr_inodes=400"}


@contextmanager
def room(folder: Path, options: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "ems", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, what: str) -> list[Path]:
    """Use up all of it; the files."""
    with suppress(OSError):
        while True:
            file = folder / f"others-{time.monotonic_ns()}"
            file.write_bytes(bytes(2**16) if what == "space" else b"")
    return list(folder.glob("others-*"))


@pytest.mark.parametrize("what", ROOMS)
def test_a_work_folder_that_becomes_full_is_waited_for(user: SlurmUser, slurm: SlurmServer, what: str) -> None:
    with room(user.root.parent / "work", ROOMS[what]) as folder:
        user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, work_dir=str(folder))
        sweep = Sweep(user, slurm, 1500, 0.05)
        command = sweep.begin()
        files = fill(folder, what)
        user.wait(
            lambda: any("No space left" in log.read_text() for log in folder.rglob("job.log")) or fill(folder, what)
        )
        time.sleep(5)
        for file in folder.glob("others-*"):
            file.unlink()
        assert files
        sweep.finish(command)
        sweep.assert_whole(attempts=None, recomputed=sweep.points // 2)
        slurm.tried("scancel", "--full", "--me")


@pytest.mark.parametrize("what", ROOMS)
def test_a_work_folder_that_is_full_from_the_start_is_one_error(user: SlurmUser, slurm: SlurmServer, what: str) -> None:
    with room(user.root.parent / "work", ROOMS[what]) as folder:
        user.place(partition=["normal"], account="grant", work_dir=str(folder))
        sweep = Sweep(user, slurm, 50, 0.05)
        sweep.described()
        fill(folder, what)
        done = user.ems("up", "s", expect=None)
        said = done.stdout + done.stderr
        assert done.returncode != 0 and "No space left on device" in said and "Free some space there" in said
        assert str(folder) in said or "/.ems/runs/" in said
        assert "Traceback" not in said
        for file in folder.glob("others-*"):
            file.unlink()
        user.ems("up", "s")
        sweep.assert_whole()


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_head_on_a_node_with_a_wrong_clock_changes_nothing(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path, seconds: int
) -> None:
    (tmp_path / "clock.c").write_text(CLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "clock.so", tmp_path / "clock.c"], check=True)
    (tmp_path / "offset").write_text(str(seconds))
    wrong = f"export LD_PRELOAD={tmp_path}/clock.so\nexport OFFSET={tmp_path}/offset"
    (slurm.folder / "prolog").write_text(f'#!/bin/sh\n[ "$SLURMD_NODENAME" = n1 ] && echo "{wrong}"\nexit 0\n')
    try:
        head = {"partition": ["service"], "computes": False}
        user.place(
            partition=["normal"], account="grant", processes_per_job=2, workers=4, head=head, usd_per_core_hour=3600,
            sbatch=["--exclude=n3"],
        )  # fmt: skip
        sweep = Sweep(user, slurm, 300, 0.1)
        command = sweep.begin()
        agent = processes(sweep, "ems.clusters.slurm.head")[0]
        assert agent.environ()["OFFSET"] == f"{tmp_path}/offset"
        sweep.finish(command)
        sweep.assert_whole()
        ((hours, usd),) = user.asked("SELECT hours, usd FROM charge")
        assert 0 < hours < 0.2 and 0 < usd < 5 * 3600 * 0.2
    finally:
        (slurm.folder / "prolog").write_text("#!/bin/sh\nexit 0\n")


def test_accounting_that_is_away_delays_nothing_and_the_cost_is_marked(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, usd_per_core_hour=3600)
    sweep = Sweep(user, slurm, 600, 0.1)
    sweep.described()
    slurm.kill("slurmdbd")
    try:
        command = user.start("up", "s")
        sweep.finish(command)
        sweep.assert_whole()
        ((basis, usd, hours),) = user.asked("SELECT basis, usd, hours FROM charge")
        assert basis == "estimated" and 3600 * hours * 0.9 < usd < 4 * 3600 * hours + 60
    finally:
        slurm.start_slurmdbd()
    corrected = "SELECT basis, abs(usd - cost_usd) < 0.01, usd > 0 FROM charge JOIN experiment ON id = experiment_id"
    user.wait(lambda: user.ems("up", "sherlock", "--refresh") and user.asked(corrected) == [("accounting", True, True)])


def test_stopping_a_run_cancels_its_jobs_and_no_others(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=4, workers=60)
    sweep = Sweep(user, slurm, 5000, 0.2)
    command = sweep.begin()
    user.wait(lambda: slurm.run("squeue", "-h", "-t", "PD", "-o", "%i"))
    slurm.run("sbatch", "-A", "grant", "-J", "mine", "-p", "normal", "-t", "9", "--wrap", "sleep 500")
    user.ems("stop", "s")
    command.wait(PATIENCE_S)
    eventually(lambda: slurm.run("squeue", "-h", "-o", "%j").split() == ["mine"])
    assert user.asked("SELECT state FROM experiment") == [("cancelled",)]


def test_no_more_workers_come_than_there_are_points_to_compute(user: SlurmUser, slurm: SlurmServer) -> None:
    user.place(partition=["normal"], account="grant", processes_per_job=1, workers=20, head={"computes": False})
    sweep = Sweep(user, slurm, 8, 5)
    job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, 100, 1]}}}
    user.describe("s", {**job, "exclude": ["n > 8"]})
    user.commit("A sweep")
    user.ems("up", "lab", "sherlock")
    user.ems("up", "s")
    sweep.assert_whole()
    ids = slurm.run("sacct", "-n", "-X", "-P", "-S", "now-2minutes", "-o", "JobID,JobName").splitlines()
    assert len({id for id in ids if id.endswith("-workers")}) == 8
