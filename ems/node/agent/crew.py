"""Who has workers join a sweep from other machines: a place that has such gives its own to the agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Joining:
    """How workers join. `host`: under which they reach this machine; `here`: how many this machine has itself."""

    host: str
    here: int
    workers: int


@dataclass(frozen=True)
class Cost:
    """What a run has cost, in US dollars. `basis`: how that is known, as `Outcome.cost_basis`."""

    usd: float = 0.0
    basis: str = ""


class Crew(Protocol):
    """Every method may be called again after an interruption, from another process.

    `grace_s`: how long a job has, after SIGTERM, until it is killed. `shares_files`: whether all machines see the run's
    folder.
    """

    grace_s: float
    shares_files: bool

    @property
    def joining(self) -> Joining:
        """What the driver is told."""

    @property
    def variables(self) -> Mapping[str, str]:
        """Of this machine, those that a job is to see, as which GPUs are its own."""

    @property
    def modules(self) -> Sequence[str]:
        """That are loaded, by name and version."""

    @property
    def loaded(self) -> Mapping[str, str]:
        """The variables that these have set; of PATH, the folders that they added."""

    def begin(self, command: Sequence[str], variables: Mapping[str, str], folder: Path) -> None:
        """Each worker is `command` and two words more, its name and for how long it lives, in seconds."""

    def tend(self, left: int) -> None:
        """Called again and again while `left` points are left: replaces the workers that are gone."""

    def cost(self, attempt: int, since: datetime) -> Cost:
        """What this run has cost since then, head and workers, as far as is known."""

    def end(self) -> None:
        """Send all away."""
