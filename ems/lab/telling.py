"""How an update tells what it does, to whoever shows it."""

from __future__ import annotations

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
