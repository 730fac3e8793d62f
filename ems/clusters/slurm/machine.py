"""A Slurm machine as a command reaches it: what differs between its own login node and a laptop."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import PurePath
from typing import Any

from ems.base.messages import Say
from ems.clusters import Fetched
from ems.clusters.pull import Pull
from ems.clusters.slurm import waiting
from ems.clusters.slurm.heads import Seen
from ems.clusters.slurm.queue import QueuedJob
from ems.clusters.slurm.wanted import Wanted
from ems.databases import Experiment, Registration
from ems.lab import Lab

TOLD_S = 600.0  # after which people hear once more of a job that waits
Found = Mapping[str, Any]  # as `answers.look` finds it of a run


class Run:
    """The run of one experiment in a `folder` there, as this process knows it."""

    def __init__(self, machine: Machine, folder: PurePath, experiment_id: str, pull: Pull | None = None) -> None:
        """`pull`: what fetches its rows, where its agent does not reach the database."""
        self.machine, self.folder, self.id = machine, folder, experiment_id
        self.submitted = 0  # by this process: as of a laptop's agents, the next command has as many tries again
        self._began, self._seen, self.pull = time.monotonic(), Seen(), pull
        self._told: tuple[str, float] | None = None

    @property
    def lasted_s(self) -> float:
        """For how long this process has looked at it."""
        return time.monotonic() - self._began

    def question(self) -> dict[str, Any]:
        """For `answers.look`."""
        told = self._told[0] if self._told and time.monotonic() - self._told[1] < TOLD_S else ""
        seen = asdict(replace(self._seen, lasted_s=self.lasted_s))
        return {"run_dir": str(self.folder), "experiment_id": self.id, "seen": seen, "key": told}

    def saw(self, found: Found) -> None:
        """Keep what a look has seen."""
        self._seen = Seen(**found["seen"])

    def submit(self, wanted: Wanted, after: int) -> str:
        """As `answers.submit`."""
        words = {"run_dir": str(self.folder), "experiment_id": self.id, "wanted": asdict(wanted), "after": after}
        waits: str = self.machine.ask("submit", **words)["waits"]
        self._seen = replace(self._seen, absent=0)
        self.submitted += not waits
        return waits

    def fetch(self, *, at_once: bool = True) -> Fetched | None:
        """As `Pull.fetch`; None where agents store by themselves."""
        return self.pull.fetch(at_once=at_once) if self.pull else None

    def release(self, lab: Lab) -> None:
        """As `Place.release`."""
        self.fetch()
        self.machine.dismiss(lab, self.id)
        self.machine.ask("release", run_dir=str(self.folder), experiment_id=self.id)
        self.machine.forget(lab, self.id)

    def news(self, said: str, key: str = "") -> str:
        """What is new to people: once for each `key`, or for each text, and of one that stays now and then."""
        key, now = key or said, time.monotonic()
        if not said or (self._told and self._told[0] == key and now - self._told[1] < TOLD_S):
            return ""
        self._told = key, now
        return said


class Machine(ABC):
    """Whoever asks for a folder gets its path there."""

    @abstractmethod
    def ask(self, question: str, **words: Any) -> dict[str, Any]:
        """What `answers` has of it. Unreachable while it is not known; EmsError, UserError: what it refuses."""

    @abstractmethod
    def look(self, lab: Lab, run: Run, *, asks: bool) -> Found | None:
        """As `answers.look`, of one run; None if it was looked at a moment ago, or cannot be looked at."""

    @abstractmethod
    def work_dir(self, lab: Lab, wanted: Wanted) -> PurePath:
        """Where the place works."""

    @abstractmethod
    def runs(self, lab: Lab) -> PurePath:
        """The folder that has those of runs."""

    @abstractmethod
    def folder(self, lab: Lab, experiment_id: str) -> PurePath | None:
        """That of a run; None if it is not known to have one."""

    @abstractmethod
    def prepare(self, lab: Lab, registration: Registration, wanted: Wanted, say: Say, *, again: bool) -> None:
        """As `Place.prepare`. `again`: what is there may be lost or damaged."""

    @abstractmethod
    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        """As `Place.is_prepared`."""

    @abstractmethod
    def probe(self, lab: Lab, work_dir: PurePath, wanted: Wanted) -> tuple[PurePath, str]:
        """A new folder for a probe, and the command of the shell that does it."""

    @abstractmethod
    def forget(self, lab: Lab, experiment_id: str) -> None:
        """The run was released: leave nothing of it but what its job left."""

    @abstractmethod
    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        """End what is at work on a run beside Slurm's jobs."""

    @abstractmethod
    def settle(self, lab: Lab, experiment: Experiment, run: Run, wanted: Callable[[], Wanted]) -> None:
        """As `Place.settle`."""

    @abstractmethod
    def nudge(self, run: Run) -> None:
        """As `Place.nudge`."""

    @abstractmethod
    def log(self, run: Run, start: int) -> bytes | None:
        """As `Place.log`."""

    def patiently(self, do: Callable[[], None], say: Say) -> None:  # noqa: ARG002
        """Do what may be repeated, once there is a connection again; as of `Site.patiently`."""
        do()

    def is_connected(self) -> bool:
        """Whether it is reached without anybody logging in."""
        return True

    def pull(self, lab: Lab, experiment_id: str) -> Pull | None:  # noqa: ARG002
        """What fetches the rows of a run, where its agent does not reach the lab's database."""
        return None

    @abstractmethod
    def where(self, file: PurePath) -> str:
        """A file there, as people find it."""


def waited(experiment: Experiment, found: Found) -> timedelta:
    """For how long the newest head has been in the queue, since it was submitted or the run before it ended."""
    ended, now = experiment.heartbeat_at, time.time()
    since = max(found["submitted_at"] or now, ended.timestamp() if ended else 0.0)
    return timedelta(seconds=max(0.0, now - since))


def told(experiment: Experiment, found: Found) -> str:
    """What people should hear of a job that was found."""
    place, begins = found.get("place"), found.get("maintenance_at")
    return waiting.told(
        QueuedJob(**found["job"]),
        (place[0], place[1]) if place else None,
        datetime.fromisoformat(begins) if begins else None,
        waited(experiment, found),
    )


def settled_charges(lab: Lab, machine: Machine) -> None:
    """Correct the charges of this lab's runs there by accounting, as far as that knows of them by now."""
    for file, experiment_id, attempt, usd in machine.ask("costs", runs=str(machine.runs(lab))).get("known", []):
        with lab.database() as database:
            if database.experiment(experiment_id) is None:  # another lab's
                continue
            database.recharge(experiment_id, attempt, usd, "accounting")
        machine.ask("charged", file=file)
