"""What a database has that takes the rows of runs which do not reach it: they are fetched from where these runs are.

A run there keeps a mailbox (`ems.node.mailbox`), which is replayed through the ordinary calls of `Database`, each as of
the moment at which it happened there.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime
from typing import Self

from ems.databases import Database
from ems.databases.states import Row


class Pulling(Database):
    """A database of one machine."""

    @abstractmethod
    def identity(self) -> str:
        """What tells this database from all others; made up once. A copy that is restored has the same."""

    @abstractmethod
    def row(self, experiment_id: str) -> Row | None:
        """The experiment's row with its newest run and the time, as `states` reads it."""

    @abstractmethod
    def at(self, moment: datetime) -> Self:
        """The same database, where what is decided about runs counts as of that moment. Not to be closed."""
