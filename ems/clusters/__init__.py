"""The places where experiments run: a folder each, whose name is the `kind:` in a stack file.

In it, `place.PLACE` is its `Place`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ems import plugins
from ems.errors import UserError

if TYPE_CHECKING:
    from ems.databases import Experiment
    from ems.engine.provider.resource import Resource
    from ems.lab import Lab


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


def place(kind: str) -> Place:
    known = plugins.names("clusters")
    if kind not in known:
        raise UserError(f"{kind!r} is not a kind of place.", f"Allowed: {', '.join(known)}")
    found: Place = plugins.load("clusters", kind, "place").PLACE
    return found


def resources() -> list[Resource]:
    return [resource for kind in plugins.names("clusters") for resource in place(kind).resources()]
