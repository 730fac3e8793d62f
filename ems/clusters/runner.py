"""What `ems runner` does at a place that nobody reaches from outside: it takes the place's runs from the database.

Of each it fetches the commit, has the place run it, and cleans up once it is finished. Whatever is killed, the next
look goes on; of two runners, one agent has the claim on a run.
"""

from __future__ import annotations

import fcntl
import json
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ems import clusters
from ems.base.errors import Busy, DatabaseError, EmsError, StoreUnavailable, Unreachable, UserError
from ems.base.locks import lock_folder
from ems.base.messages import Say
from ems.databases import ClusterRow, Experiment, Outcome, State
from ems.lab import Lab, repository
from ems.lab.patience import Patience

LOOK_S, QUICK_S = 10.0, 2.0  # between two looks, and as long as something is about to begin
ONCE_S = 20.0  # that `--once` gives the runs to begin
CRONTAB = """\
{head}*/5 * * * * cd {root} && mkdir -p -m 700 .ems && {ems} runner {stack} --once >> .ems/runner.log 2>&1
"""
SCRON = "#SCRON --time=00:10:00{partition}\n"
TAKEN = "taken"  # below the lab's .ems: a file for each run that is not cleaned up yet
LEASE_S = 60.0


def attend(lab: Lab, stack: str, say: Say, *, once: bool) -> None:
    """Attend to the runs of a place until this process ends or, with `once`, until they have begun.

    UserError as of `Runner`; Busy if another process of this folder does so; StoreError if the lab's store cannot be
    used from here, which is no fault of a run.
    """
    with _alone(lab, stack):
        patience, began = Patience(say), time.monotonic()
        runner = patience(lambda: Runner(lab, stack, say))
        lab.make_store_ready()
        if not once:
            say(f"Looking for runs of {stack}, until Ctrl-C.")
        while True:
            waiting = patience(runner.look)
            is_over = all(each.state is State.RUNNING for each in waiting)
            if once and (is_over or time.monotonic() - began > ONCE_S):
                return
            time.sleep(LOOK_S if is_over else QUICK_S)


@contextmanager
def _alone(lab: Lab, stack: str) -> Iterator[None]:
    """One of a lab's folder and machine: others would say the same twice."""
    file = lock_folder(lab.work_dir) / f"runner-{stack}.lock"
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"A runner of {stack} is at work in this folder.", "It takes what is registered.") from None
        yield


def crontab(lab: Lab, stack: str) -> str:
    """The lines by which cron or, at a Slurm machine, scrontab starts a runner every five minutes."""
    row = _row(lab, stack)
    head = ""
    if row.kind == "slurm":
        partition = (json.loads(row.settings).get("head") or {}).get("partition")
        head = SCRON.format(partition=f" --partition={','.join(partition)}" if partition else "")
    ems = shlex.join([sys.executable, "-m", "ems.cli"])  # cron knows no PATH of the user
    return CRONTAB.format(head=head, root=shlex.quote(str(lab.root)), ems=ems, stack=stack)


def _row(lab: Lab, stack: str) -> ClusterRow:
    """UserError if the lab has no such place, or its runs are started from outside."""
    with lab.database() as database:
        row, experiments = database.record(ClusterRow, stack), database.newest([stack])
    if row is None and experiments:
        hint = "Name the stack that it names as its place (`cluster: {stack: NAME}`)."
        raise UserError(f"{stack} is an experiment, not a place.", hint)
    if row is None:
        hint = f"Name the stack of a place; register it, from anywhere: ems up {stack}"
        raise UserError(f"The lab's database has no place {stack}.", hint)
    if clusters.reach_of(row) is None:
        hint = f"Say `reach: runner` in its stack file, then: ems up {stack}"
        raise UserError(f"Runs at {stack} are started by `ems up`: it needs no runner.", hint)
    return row


class Runner:
    """Of one place, in a clone of the lab's repository there."""

    def __init__(self, lab: Lab, stack: str, say: Say) -> None:
        """UserError if the lab has no such place, or its runs are started from outside."""
        self._lab, self._stack, self._say, self._place = lab, stack, say, clusters.place(_row(lab, stack).kind)
        self._said: dict[str, str] = {}
        self._states: dict[str, State] = {}

    def look(self) -> list[Experiment]:
        """Attend to each run of the place once; returns those that are not finished. DatabaseError."""
        with self._lab.database() as database:
            found = [each.id for each in database.newest() if self._is_mine(each) and not each.state.finished]
            taken = [id for id in self._taken() if id not in found]
            experiments = [database.experiment(id) for id in (*found, *taken)]
        for id, experiment in zip((*found, *taken), experiments, strict=True):
            if experiment and not experiment.state.finished:
                self._attend(experiment)
            else:
                self._clean_up(id, experiment)
        return [experiment for experiment in experiments if experiment and not experiment.state.finished]

    def _is_mine(self, experiment: Experiment) -> bool:
        return experiment.registration.cluster == self._stack

    def _taken(self) -> Iterator[str]:
        return (file.name for file in self._marks.iterdir() if file.is_file())

    @property
    def _marks(self) -> Path:
        folder = self._lab.work_dir / TAKEN / self._stack
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _attend(self, experiment: Experiment) -> None:
        """What the place refuses is the end of the run, for people to read; what may come back is tried on."""
        registration = experiment.registration
        try:
            mark = self._marks / experiment.id
            if not (mark.exists() and self._place.is_prepared(self._lab, experiment.id)):
                repository.obtain(self._lab.root, registration.commit)
                self._place.refuse(self._lab, registration)
                mark.touch()
                self._place.prepare(self._lab, registration, lambda step: self._tell(experiment, step))
            self._tell_state(experiment)
            if news := self._place.ensure_running(self._lab, experiment):
                self._tell(experiment, news)
        except DatabaseError:
            raise
        except (Unreachable, StoreUnavailable) as error:
            self._tell(experiment, f"waits: {error.message}")
        except EmsError as error:
            self._tell(experiment, f"failed: {error.message}")
            self._fail(experiment, error)

    def _fail(self, experiment: Experiment, error: EmsError) -> None:
        with self._lab.database() as database:
            if claim := database.claim(experiment.id, agent=f"{socket.gethostname()}:runner", lease_s=LEASE_S):
                done, failed = experiment.points_done, experiment.points_failed
                database.release(claim, Outcome(State.FAILED, done, failed, error=str(error)))

    def _clean_up(self, experiment_id: str, experiment: Experiment | None) -> None:
        """Of a run that is finished, or forgotten by the database."""
        with suppress(EmsError):  # the next look does
            self._place.release(self._lab, experiment_id)
            (self._marks / experiment_id).unlink(missing_ok=True)
            if experiment:
                self._tell_state(experiment)

    def _tell_state(self, experiment: Experiment) -> None:
        if self._states.get(experiment.id) is not experiment.state:
            self._states[experiment.id] = experiment.state
            self._tell(experiment, str(experiment.state))

    def _tell(self, experiment: Experiment, said: str) -> None:
        if self._said.get(experiment.id) != said:
            self._said[experiment.id] = said
            self._say(f"{experiment.registration.stack}: {said}")
