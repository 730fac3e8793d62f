"""The places where experiments run: a folder each, whose name is the `kind:` in a stack file.

In it, `place.PLACE` is its `Place`, and `settings.Settings` are the keys that its stack files have besides `kind:`.
A file beside the folders is shared by several places.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ems.base import plugins
from ems.base.errors import UserError
from ems.base.messages import Say, quiet
from ems.databases import ClusterRow, Experiment, Registration

if TYPE_CHECKING:
    from ems.clusters.openssh import Host
    from ems.clusters.pull import Pull
    from ems.lab import Lab
    from ems.provenance.environment import Environment
    from ems.stack.models import Spec
    from ems.stack.strict import Strict


@dataclass(frozen=True)
class Fetched:
    """What was brought from a place in one go, and what still waits there: batches of rows, lists of files."""

    batches: int = 0
    bytes: int = 0
    batches_left: int = 0
    bytes_left: int = 0

    def then(self, later: Fetched) -> Fetched:
        """What was brought together, and what is left after the later one."""
        return Fetched(self.batches + later.batches, self.bytes + later.bytes, later.batches_left, later.bytes_left)


@dataclass(frozen=True)
class Live:
    """How a run does just now: points a second, and the processes that compute; None where that is not known.

    `waits`: in some words what more is to come, and why it is not there yet; "" if there is nothing to be said.
    """

    rate: float | None = None
    workers: int | None = None
    waits: str = ""


class Place(ABC):
    """What a kind of place promises. Every method may be called again after an interruption, from any process.

    The program declares an evanescent place while its experiment is unfinished: first what `declare` gives, then one
    resource of EMS's own that calls `prepare` when it is created and `release` when it is deleted. The run then calls
    `ensure_running` until the experiment is finished. A persistent place is a row of the lab's database.
    """

    needs_remote = True
    """Whether the commit must be on a remote, since the place fetches it."""

    needs_server = True
    """Whether the database must be one that other machines reach: not a file of this one."""

    fetches_rows = False
    """Whether a database that is such a file does after all, as `fetch` brings the rows here."""

    starts_runs = True
    """Whether commands that attend to a run start it; else somebody at the place does."""

    shares_files = True
    """Whether the place sees the lab's own folder, as over a shared file system."""

    def host(self, settings: Mapping[str, Any], login: str) -> Host | None:  # noqa: ARG002
        """How it is reached by SSH; None where it is reached without. UserError for settings that name no machine.

        `settings`: those of its stack file as JSON; `login`: the command by which a person connects.
        """
        return None

    def survey(self, lab: Lab, stack: str, settings: Mapping[str, Any], say: Say) -> Mapping[str, Any]:  # noqa: ARG002
        """Of the persistent place `stack`, when it is updated: make sure that it can be used, and say what was found.

        `settings`: its `ems:cluster` as JSON. EmsError for what a person has to change. Ends within minutes.
        """
        return {}

    def needs(self, lab: Lab, settings: Mapping[str, Any]) -> Sequence[str]:  # noqa: ARG002
        """What people should know of the rights that it takes, for `ems check` of the place's stack; a line each."""
        return ()

    def establish(
        self,
        lab: Lab,  # noqa: ARG002
        stack: str,  # noqa: ARG002
        settings: Mapping[str, Any],
    ) -> tuple[Mapping[str, Any], Sequence[Any]]:
        """Of a persistent place: its settings as JSON, and resources of Pulumi's own providers that it is made of.

        What these are called is in the settings, as `pulumi.Output`.
        """
        return settings, ()

    def machines(self, registration: Registration) -> int:  # noqa: ARG002
        """How many machines the experiment takes, for its row."""
        return 1

    def declare(
        self,
        registration: Registration,  # noqa: ARG002
        settings: Mapping[str, Any],  # noqa: ARG002
        depends_on: Sequence[Any],  # noqa: ARG002
    ) -> Sequence[Any]:
        """Resources of Pulumi's own providers (`pulumi.Resource`) that the place is made of; they cost nothing until
        `prepare` opens them.

        `settings`: those of the persistent place that the experiment names, as JSON; {} if it names none.
        """
        return ()

    def refuse(self, lab: Lab, registration: Registration) -> None:  # noqa: ARG002
        """Of a new experiment, before it is registered: UserError for settings that the place would not take.

        Nothing is refused where the place does not answer.
        """
        return

    def build(self, environment: Environment, say: Say) -> None:  # noqa: ARG002
        """Of a new experiment, before it is registered: build its environment, if that is done on this machine.

        ProvenanceError if that fails, as where a package is not to be had, or has another hash than the lock says.
        """
        return

    @abstractmethod
    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        """Make the place ready for the experiment: environment, code, inputs, machines. `say` is told each step.

        ProvenanceError if one of these could not be obtained; EmsError if the place cannot take it.
        """

    @abstractmethod
    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        """Whether `prepare` has made the place ready for the experiment, maybe before a `release`."""

    def expect(self, lab: Lab, registration: Registration) -> None:  # noqa: ARG002
        """Of a new experiment, while the engine starts: it will be prepared in a moment, and run. May never come."""
        return

    @abstractmethod
    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:
        """Leave nothing that costs. What a run has not stored yet stays; what was released before is not an error.

        `say` hears what it waits for, such as a connection.
        """

    @abstractmethod
    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        """Have an agent at work on this unfinished experiment, unless there is one. Called again and again, with the
        row as it is now: not while the database is away. Returns what people should hear of it, mostly "".

        An agent that lives and does not beat any more is ended and replaced. EmsError if agents end, or are ended,
        again and again without a result.
        """

    @abstractmethod
    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        """The run is over: end what is still at work on it, as an agent that hangs, where that is in reach."""

    def stops_with_its_command(self, lab: Lab, experiment: Experiment) -> bool:  # noqa: ARG002
        """Whether Ctrl-C in a command that watches this run ends it, instead of detaching from it."""
        return False

    @abstractmethod
    def settle(self, lab: Lab, experiment: Experiment) -> None:
        """Store what is left of a run whose deadline passed before anybody wrote its end, where that is in reach."""

    @abstractmethod
    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        """Have the agent hear its orders now, where that is in reach: its next beat may be a minute away."""

    def fetch(self, lab: Lab, experiment: Experiment) -> Fetched | None:  # noqa: ARG002
        """Bring the rows that the place keeps for a database which it does not reach; None where there are no such.

        Unreachable; UserError if they are another database's.
        """
        return None

    def at_hand(self, lab: Lab, experiment: Experiment) -> Pull | None:  # noqa: ARG002
        """What brings those over a connection that is open; None without one."""
        return None

    @abstractmethod
    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        """What the job wrote to its standard output and error, from byte `start` on, some 64 kB at a time.

        A negative `start` counts from the end. b"" if there is no more as yet, None where the log is out of reach.
        Unreachable while the place does not answer.
        """

    @abstractmethod
    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        """How the run does just now; None where that is out of reach."""


def place(kind: str) -> Place:
    """The place of this kind; UserError if there is none, or a package that it needs is not installed."""
    known = plugins.names("clusters")
    if kind not in known:
        raise UserError(f"{kind!r} is not a kind of place.", f"Allowed: {', '.join(known)}")
    found: Place = plugins.load("clusters", kind, "place").PLACE
    return found


def attending(kind: str, reach: str | None) -> Place:
    """What commands elsewhere attend to runs with, at a persistent place of this kind. UserError as of `place`.

    `reach`: how runs get there, as its stack file says it.
    """
    if reach is None:
        return place(kind)
    from ems.clusters import awaited

    return awaited.of_kind(kind)


def reach_of(row: ClusterRow) -> str | None:
    """How runs get to a persistent place, as its stack file says it."""
    reach: str | None = json.loads(row.settings).get("reach")
    return reach


def host(described: Spec, stack: str) -> Host | None:
    """How the place that this stack describes is reached by SSH; None if it describes none, or that is reached without.

    UserError for settings that name no machine.
    """
    from ems.stack.models import ClusterSpec, ExperimentSpec, PlaceSpec

    where = described.cluster if isinstance(described, ExperimentSpec) else described
    if not isinstance(where, ClusterSpec | PlaceSpec) or where.kind is None:
        return None
    return place(where.kind).host(where.model_dump(), f"ems login {stack}")


def settings() -> dict[str, type[Strict]]:
    """The model of the settings of each kind of place, by its name, for those who read stack files.

    UserError if a package that one of them needs is not installed.
    """
    return {kind: plugins.load("clusters", kind, "settings").Settings for kind in plugins.names("clusters")}


def needs(lab: Lab, described: object) -> Sequence[str]:
    """As `Place.needs`, of what a stack file describes; nothing if that is not a place."""
    from ems.stack.models import ClusterSpec

    if not isinstance(described, ClusterSpec):
        return ()
    return place(described.kind).needs(lab, described.model_dump(mode="json"))


def settings_said(lab: Lab, registration: Registration) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Of a run's place, as JSON: what its experiment says, which counts most, and what the place's own stack says."""
    with lab.database() as database:
        row = database.record(ClusterRow, registration.cluster)
    return json.loads(registration.spec)["cluster"], json.loads(row.settings) if row else {}


def of(lab: Lab, experiment: Experiment) -> Place:
    """As `of_registered`."""
    return of_registered(lab, experiment.registration)


def of_registered(lab: Lab, registration: Registration) -> Place:
    """The place of an experiment: one of its own, named by its kind, or the persistent one that it names.

    Of one that was imported, a place where nothing runs.

    UserError as of `place`; DatabaseError if a persistent place cannot be looked up.
    """
    name = registration.cluster
    if registration.imported:
        from ems.clusters.nowhere import Nowhere

        return Nowhere()
    if name in plugins.names("clusters"):
        return place(name)
    with lab.database() as database:
        persistent = database.record(ClusterRow, name)
    return attending(persistent.kind, reach_of(persistent)) if persistent else place(name)
