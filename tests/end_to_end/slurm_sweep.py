"""A sweep on a Slurm machine, which notes each call, and what its end must be on a bad day."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter

import psutil

from tests.clusters.slurm_server import SlurmServer
from tests.end_to_end.slurm_user import SlurmUser
from tests.processes import PATIENCE_S, eventually

CODE = """
import time
def f(n):
    time.sleep(PAUSE_S)
    with open("CALLS", "a") as calls:
        calls.write(f"{n}\\n")
    return {"twice": 2 * n}
"""


class Sweep:
    """A sweep of a function over `points` points on a Slurm machine, which notes each call."""

    def __init__(self, user: SlurmUser, slurm: SlurmServer, points: int, pause_s: float, code: str = CODE) -> None:
        self.user, self.slurm, self.points = user, slurm, points
        self._calls = user.root.parent / "calls"
        user.write("experiments/e/sweep.py", code.replace("PAUSE_S", str(pause_s)).replace("CALLS", str(self._calls)))

    def described(self) -> None:
        job = {"function": "experiments.e.sweep:f", "sweep": {"n": {"range": [1, self.points, 1]}}}
        self.user.describe("s", job)
        self.user.commit("A sweep")
        self.user.ems("up", "lab", "sherlock")

    def begin(self) -> subprocess.Popen[str]:
        """`ems up`, once some points are stored."""
        self.described()
        command = self.user.start("up", "s")
        self.user.wait(lambda: self.user.stored() >= 10 or command.poll() is not None)
        assert command.poll() is None, self.user.said(command)
        return command

    def computes(self, points: int) -> None:
        """Wait until so many more are stored."""
        before = self.user.stored()
        self.user.wait(lambda: self.user.stored() >= before + points)

    def calls(self) -> Counter[int]:
        return Counter(map(int, self._calls.read_text().split()))

    def processes(self, *words: str) -> list[psutil.Process]:
        """Those of Python, without the shells that began them."""
        return [each for each in self.user.processes(*words) if each.name().startswith("python")]

    def hurry(self) -> None:
        """What was taken away waits for two minutes otherwise."""
        for id in self.slurm.run("squeue", "-h", "-r", "-t", "PD", "-o", "%i %r").splitlines():
            if "BeginTime" in id:
                self.slurm.start_soon(id.split()[0])

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
