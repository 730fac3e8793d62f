"""The places where experiments run: one module each, whose name is the `kind:` in a stack file.

A module's `PLACE` is its `Place`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ems.errors import UserError

if TYPE_CHECKING:
    from ems.databases import Experiment
    from ems.lab import Lab
    from ems.provider.resource import Resource


class Place(ABC):
    """What a kind of place promises.

    - `resources`: the provider's resource types of this place; making one may be repeated, deleting one leaves nothing
      that costs.
    - An evanescent place is declared by the program while its experiment is unfinished, as one resource `cluster`.
    """

    cluster: str  # token of the resource that stands for the place
    needs_remote: bool  # whether the commit must be on a remote
    stops_with_its_command: bool  # whether Ctrl-C ends the run, instead of detaching from it

    @abstractmethod
    def resources(self) -> Sequence[Resource]: ...

    @abstractmethod
    def ensure_running(self, lab: Lab, experiment: Experiment) -> None:
        """Have an agent at work on this unfinished experiment, unless there is one. Called again and again."""

    @abstractmethod
    def settle(self, lab: Lab, experiment: Experiment) -> None:
        """Store what is left of a run whose deadline passed before anybody wrote its end, where that is in reach."""


def kinds() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def place(kind: str) -> Place:
    if kind not in kinds():
        raise UserError(f"{kind!r} is no kind of place.", f"Allowed: {', '.join(kinds())}")
    found: Place = importlib.import_module(f"ems.clusters.{kind}").PLACE
    return found


def resources() -> list[Resource]:
    return [resource for kind in kinds() for resource in place(kind).resources()]
