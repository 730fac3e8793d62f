"""How an update tells what it does, to whoever shows it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from ems.databases import Experiment


class Telling(Protocol):
    """Who hears what an operation does, to show it."""

    def say(self, line: str) -> None:
        """A step, until the next one."""

    def note(self, line: str) -> None:
        """A remark that stays."""

    def look(self, experiment: Experiment) -> None:
        """A run under way, as its row has just been seen."""

    def conclude(self, text: str, *, failed: bool) -> None:
        """How a run ended, in some lines."""


class Board(Protocol):
    """Where several updates are shown side by side."""

    def stack(self, name: str) -> AbstractContextManager[Telling]:
        """Who hears of a stack, which is under way as long as the block lasts."""

    def end(self, name: str, experiment: Experiment | None, *, ran: bool) -> None:
        """How a stack has ended. `ran`: whether there was anything to do."""

    def fail(self, name: str, error: str) -> None:
        """Why a stack could not be brought to an end."""


class Unheard:
    """For an update of which nobody wants to hear."""

    def say(self, line: str) -> None:
        """Nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def look(self, experiment: Experiment) -> None:
        """Nothing."""

    def conclude(self, text: str, *, failed: bool) -> None:
        """Nothing."""
