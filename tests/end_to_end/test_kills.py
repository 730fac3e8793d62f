"""The kill matrix: each process killed with SIGKILL in each phase, then `ems up` as if nothing had happened.

EMS_DRILL=1 (`make drill`) runs all of it; without, the most telling cases.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import psutil
import pytest

from ems.engine import install as engine
from tests import tally
from tests.end_to_end.conftest import User
from tests.end_to_end.test_sweeps import CODE, POINTS, Sweeper
from tests.processes import PATIENCE_S, matching

pytestmark = pytest.mark.trial
ROWS = 24
UP = ("pulumi", "up", "--yes", "--skip-preview", "--stack", "e")
VICTIMS: dict[str, Callable[[User], list[psutil.Process]]] = {
    "cli": lambda user: user.processes("ems.cli up e"),
    "pulumi": User.updates,
    "provider": lambda user: user.processes("-m ems.engine.provider"),
    "agent": lambda user: user.processes("-m ems.node "),  # its keeper is `ems.node.job.keeper`
    "keeper": lambda user: user.processes("-m ems.node.job.keeper"),
    "job": lambda user: user.processes("experiments/e/job.py"),
    "all": lambda user: user.processes(),
}
ALWAYS, AT_WORK = ("cli", "pulumi", "provider", "all"), tuple(VICTIMS)
PLAIN = ("provider",)  # which is a process of its own only in plain `pulumi up`: in `ems up` it is a part of that
MATRIX = {  # phase → who lives then
    "creating": ALWAYS,
    "provisioning": ALWAYS,
    "claimed": AT_WORK,
    "mid_run": AT_WORK,
    "flushing": (*ALWAYS, "agent"),
    "finished": ALWAYS,
}
SHORT = {
    ("creating", "pulumi"),
    ("provisioning", "all"),
    ("mid_run", "cli"),
    ("mid_run", "provider"),
    ("mid_run", "keeper"),
    ("flushing", "all"),
}
CASES = [
    pytest.param(phase, victim, marks=() if (phase, victim) in SHORT else pytest.mark.drill)
    for phase, victims in MATRIX.items()
    for victim in victims
]


def runs(user: User) -> int:
    ((count,),) = user.query("SELECT count(*) FROM run")
    return int(count)


PHASES: dict[str, Callable[[User], bool]] = {
    "creating": lambda user: bool(user.updates()) and not user.query("SELECT 1 FROM experiment"),
    "provisioning": lambda user: user.query("SELECT state FROM experiment") == [("provisioning",)],
    "claimed": lambda user: runs(user) == 1 and user.stored() < 2,
    "mid_run": lambda user: 2 < user.stored() < ROWS // 2,
    "flushing": lambda user: any(matching(user.root / ".ems/runs", "*/exit.json")),
    "finished": lambda user: user.query("SELECT state FROM experiment") == [("succeeded",)],
}

HELD_AT = {"claimed": {"held_at": 0}, "mid_run": {"held_at": ROWS // 3}, "flushing": {"held_at": ROWS // 3}}  # a row


@contextmanager
def database_locked(user: User) -> Iterator[None]:
    with closing(sqlite3.connect(user.root / ".ems/ems.db", isolation_level=None, timeout=PATIENCE_S)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("COMMIT")


def kill(user: User, phase: str, victim: str) -> None:
    """SIGKILL the victim as soon as it is found alive in that phase; all at once until nobody is left."""
    kill_all(user, user.wait(lambda: PHASES[phase](user) and VICTIMS[victim](user)), victim)
    user.go_on()


def kill_all(user: User, found: list[psutil.Process], victim: str) -> None:
    tally.tried()
    while found:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):  # another's death was its end
                process.kill()
        found = user.processes() if victim == "all" else []


def kill_while_flushing(user: User, victim: str) -> None:
    """The job has ended, and what it wrote last waits in the spool."""
    user.wait(lambda: PHASES["mid_run"](user))
    with database_locked(user):
        user.go_on()
        kill(user, "flushing", victim)


def cold(cache: Path) -> dict[str, str]:
    """The environment of a user whose cache is empty, so that environments are built; but Pulumi is on PATH."""
    return {"EMS_CACHE_DIR": str(cache), "PATH": os.pathsep.join([str(engine.ensure()), os.environ["PATH"]])}


def exit_code(phase: str, victim: str) -> set[int]:
    """Of the interrupted command."""
    if victim in {"cli", "all"}:
        return {-9}
    if victim in {"job", "keeper"}:
        return {6}
    if victim == "provider":
        return {0, 1, 255}  # Pulumi's own
    if phase == "finished":
        return {0, 5}  # depending on whether the run ended before Pulumi did
    return {0} if victim == "agent" else {5}


@pytest.mark.parametrize(("phase", "victim"), CASES)
def test_a_killed_process_changes_nothing(user: User, tmp_path: Path, phase: str, victim: str) -> None:
    user.experiment(rows=ROWS, pause_s=0.15, **HELD_AT.get(phase, {}))
    env = cold(tmp_path / "cache")
    if victim in PLAIN:
        user.pulumi("stack", "init", "e")
    command = user.start(*(UP if victim in PLAIN else ("up", "e")), **env)
    if phase == "flushing":
        kill_while_flushing(user, victim)
    else:
        kill(user, phase, victim)
    assert command.wait(PATIENCE_S) in exit_code(phase, victim), user.said(command)
    job_was_killed = victim in {"job", "keeper"}
    user.ems("up", "e", *(["--retry"] if job_was_killed else []), **env)
    user.assert_undisturbed(ROWS)
    assert runs(user) <= (2 if victim in {"agent", "all", "job", "keeper"} else 1)


def test_a_new_agent_takes_over_while_up_watches(user: User) -> None:
    user.experiment(rows=ROWS, pause_s=0.15, **HELD_AT["mid_run"])
    command = user.start("up", "e")
    kill(user, "mid_run", "agent")
    assert command.wait(PATIENCE_S) == 0
    assert user.query("SELECT attempt, state FROM run ORDER BY attempt") == [(1, "lost"), (2, "succeeded")]
    user.assert_undisturbed(ROWS)


# Sweeps


DEAR = CODE.replace("time.sleep(0.05)", "time.sleep(0.6)")
IN_FLIGHT = 2 * 4  # points of two batches: what a kill may cost
SWEEP_VICTIMS = {
    **{name: VICTIMS[name] for name in ("cli", "pulumi", "agent", "keeper", "all")},
    "driver": lambda user: user.processes("ems.node.driver.driver"),
    "worker": lambda user: user.processes("ems.node.driver.worker")[:1],
}


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 5), *(pytest.param(seed, 10, marks=pytest.mark.drill) for seed in range(6))]
)
def test_a_sweep_that_is_killed_again_and_again_has_each_point_once(user: User, seed: int, kills: int) -> None:
    sweeper = Sweeper(user.root, user.started)
    sweeper.sweep(DEAR)
    random = Random(seed)
    killed = []
    command = sweeper.start("up", "e")
    while len(killed) < kills:
        time.sleep(random.uniform(0.5, 5))
        victim = random.choice(sorted(SWEEP_VICTIMS))
        if found := SWEEP_VICTIMS[victim](sweeper):
            kill_all(sweeper, found, victim)
            killed.append(victim)
        else:
            tally.tried(hit=False)
        if victim in {"cli", "all"}:
            command.wait(PATIENCE_S)
        if command.poll() is not None:
            command = sweeper.start(*next_command(sweeper))
    command.wait(PATIENCE_S)
    while sweeper.counters()[0] != "succeeded":
        sweeper.ems(*next_command(sweeper), expect=None)
    sweeper.assert_whole()
    assert sum(sweeper.calls().values()) <= len(POINTS) + kills * IN_FLIGHT, killed


def next_command(sweeper: Sweeper) -> list[str]:
    """What the README says for the state that the run is in."""
    failed = sweeper.query("SELECT 1 FROM experiment WHERE state IN ('failed', 'cancelled', 'expired')")
    return ["up", "e", *(["--retry"] if failed else [])]


def test_up_stores_what_a_killed_agent_left_when_the_deadline_passed(user: User) -> None:
    sweeper = Sweeper(user.root, user.started)
    sweeper.sweep(DEAR, max_hours=12 / 3600)
    sweeper.start("up", "e")
    sweeper.wait(lambda: sweeper.stored() >= 2)
    with database_locked(sweeper):
        sweeper.wait(lambda: len(list(matching(sweeper.root / ".ems/runs", "*/spool-*/*.batch"))) >= 2)
        kill_all(sweeper, sweeper.processes(), "all")
    kept = sweeper.kept()
    sweeper.wait(lambda: "expired" in sweeper.ems("status").stdout)
    assert len(sweeper.points()) < len(kept)
    sweeper.ems("up", "e", expect=6)
    assert sweeper.counters() == ("expired", len(kept), 0, 0)
    assert set(sweeper.points()) == kept
    sweeper.assert_nothing_left()
