"""What happens on a Slurm machine that is itself at fault: minutes each, as root: `make drill` runs them.

Its commands lie, its disks are full, a clock is wrong, accounting is away. Each ends in the rows of an undisturbed run,
or in one clear error.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.clusters.clock import make_clock
from tests.clusters.slurm_server import SlurmServer, faked, lying, slurm
from tests.end_to_end.slurm_sweep import Sweep
from tests.end_to_end.slurm_user import SlurmUser, user
from tests.processes import eventually

__all__ = ["slurm", "user"]
pytestmark = [pytest.mark.xdist_group("slurm"), pytest.mark.timeout(1800)]
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
        liar = faked(user.root.parent, theirs, name, 'exec REAL "$@"' if true else text)
        command = sweep.begin()
    liar.write_text(lying(name, text))
    sweep.finish(command)
    sweep.assert_whole()


def test_a_run_without_any_worker_fails_and_says_why(
    user: SlurmUser, slurm: SlurmServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `sbatch --test-only` took is refused later, as after a change of the machine."""
    user.place(partition=["normal"], account="grant", head={"computes": False})
    sweep = Sweep(user, slurm, 300, 0.2)
    sweep.described()
    said = "sbatch: error: Batch job submission failed: Invalid qos specification"
    refused = f'case "$*" in *--test-only*) ;; *--array=*) echo "{said}" >&2; exit 1;; esac; exec REAL "$@"'
    faked(user.root.parent, monkeypatch, "sbatch", refused)
    done = user.ems("up", "s", expect=None)
    assert done.returncode not in {0, 1} and "The run has no workers" in done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    eventually(lambda: slurm.run("squeue", "-h") == "")


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


def fill(folder: Path, what: str) -> None:
    """Use up all of it."""
    with suppress(OSError):
        while True:
            file = folder / f"others-{time.monotonic_ns()}"
            file.write_bytes(bytes(2**16) if what == "space" else b"")


def clear(folder: Path) -> None:
    files = list(folder.glob("others-*"))
    assert files
    for file in files:
        file.unlink()


@pytest.mark.parametrize("what", ROOMS)
def test_a_work_folder_that_becomes_full_is_waited_for(user: SlurmUser, slurm: SlurmServer, what: str) -> None:
    with room(user.root.parent / "work", ROOMS[what]) as folder:
        user.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, work_dir=str(folder))
        sweep = Sweep(user, slurm, 1500, 0.05)
        command = sweep.begin()
        for _ in range(2):  # some of it is released meanwhile
            fill(folder, what)
        time.sleep(5)
        clear(folder)
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
        clear(folder)
        user.ems("up", "s")
        sweep.assert_whole()


@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_head_on_a_node_with_a_wrong_clock_changes_nothing(
    user: SlurmUser, slurm: SlurmServer, tmp_path: Path, seconds: int
) -> None:
    library = make_clock(tmp_path)
    (tmp_path / "offset").write_text(str(seconds))
    wrong = f"export LD_PRELOAD={library}\nexport OFFSET={tmp_path}/offset"
    (slurm.folder / "prolog").write_text(f'#!/bin/sh\n[ "$SLURMD_NODENAME" = n1 ] && echo "{wrong}"\nexit 0\n')
    try:
        head = {"partition": ["service"], "computes": False}
        user.place(
            partition=["normal"], account="grant", processes_per_job=2, workers=4, head=head, usd_per_core_hour=3600,
            sbatch=["--exclude=n3"],
        )  # fmt: skip
        sweep = Sweep(user, slurm, 300, 0.1)
        command = sweep.begin()
        agent = sweep.processes("ems.clusters.slurm.head")[0]
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
        assert basis in {"completion", "estimated"} and 3600 * hours * 0.9 < usd < 4 * 3600 * hours + 60
    finally:
        slurm.start_slurmdbd()
    corrected = "SELECT basis, abs(usd - cost_usd) < 0.01, usd > 0 FROM charge JOIN experiment ON id = experiment_id"
    user.wait(lambda: user.ems("up", "sherlock", "--refresh") and user.asked(corrected) == [("accounting", True, True)])
