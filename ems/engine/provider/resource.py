"""What every resource type of the provider promises, and what an operation on one is given."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ems.databases import Database
from ems.lab import Lab
from ems.lab.telling import Telling

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"  # Pulumi's marker of a value that a preview cannot know

Properties = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """One call of the engine: where it happens, how to show progress, whether to stop.

    `cancelled` is set by Ctrl-C or SIGTERM; `listening()` turns false when the engine is gone.
    """

    lab: Lab
    telling: Telling
    listening: Callable[[], bool] = lambda: True
    cancelled: threading.Event = field(default_factory=threading.Event)
    detach: bool = False

    def say(self, line: str) -> None:
        """As `Telling.say`."""
        self.telling.say(line)

    def note(self, line: str) -> None:
        """As `Telling.note`."""
        self.telling.note(line)

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The lab's database, closed at the end of the block."""
        with self.lab.database() as database:
            yield database


@dataclass(frozen=True)
class Difference:
    """`changed` and `replacing`: names of inputs that call for an update, or for a new resource."""

    changed: tuple[str, ...] = ()
    replacing: tuple[str, ...] = ()


class Resource(ABC):
    """A resource type. Every call may be repeated after an interruption. Numbers arrive as floats."""

    token: str
    key: str  # the input that identifies it: another value is another resource
    inputs: Mapping[str, str]  # name → JSON type, for the schema
    outputs: Mapping[str, str] = {}

    def diff(self, old_inputs: Properties, old_outputs: Properties, new: Properties) -> Difference:
        """By default: `key` decides about replacing, every input about updating."""
        del old_outputs
        changed = tuple(name for name in self.inputs if old_inputs.get(name) != new.get(name))
        return Difference(changed, tuple(name for name in changed if name == self.key))

    @abstractmethod
    def create(self, operation: Operation, inputs: Properties) -> Properties:
        """Make it, or bring what is there to `inputs`; returns the outputs (the inputs are added).

        An EmsError is shown at the resource and fails the update.
        """

    def update(self, operation: Operation, old_outputs: Properties, inputs: Properties) -> Properties:
        """Bring it to `inputs`; returns the outputs. By default as `create`."""
        del old_outputs
        return self.create(operation, inputs)

    @abstractmethod
    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        """The outputs as they are now; None only if it truly does not exist."""

    @abstractmethod
    def delete(self, operation: Operation, inputs: Properties) -> None:
        """Release what it holds; what is gone already is not an error. Rows of the registry stay."""
