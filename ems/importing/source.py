"""What a table is to those who import it: names, types and rows, read as often as asked, in flat memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ems.base.errors import UserError
from ems.base.messages import nearest, quoted
from ems.node.job.columns import KnownTypes
from ems.node.job.results_file import Chunk
from ems.spool.batch import ColumnType


@dataclass(frozen=True)
class Reading:
    """How a source is to be read, as far as somebody has said so.

    `table`: of a database; `delimiter`: of a text file; `types`: of columns, by the source's names; `renamed`: names
    that columns are to have here, by the source's names.
    """

    table: str = ""
    delimiter: str = ""
    types: Mapping[str, ColumnType] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)


class Source(ABC):
    """A table. Errors name source, row or line, column and value.

    `kind`: `csv`, `parquet`, …; `name`: where it is, as recorded; `table`: its name there, "" of a file; `size`: what
    the sizes of all chunks come to, 0 where that is not known; `keeps_order`: whether each reading has the same order.
    """

    kind: str
    name: str
    table: str = ""
    size: int = 0
    keeps_order: bool = True

    def digest(self) -> str:
        """SHA-256 of what is read, 64 hexadecimal digits; "" where only the rows say, as `rows_digest`."""
        return ""

    def rows_digest(self) -> str:
        """SHA-256 that stands for the rows read last, in whatever order, where `digest` says nothing."""
        return ""

    @abstractmethod
    def chunks(self, types: KnownTypes) -> Iterator[Chunk]:
        """All rows from the first one on; `types` learns the columns' types. UserError at what cannot be kept exactly.

        A column is missing from a chunk if it has had no value so far.
        """

    @abstractmethod
    def names(self) -> list[str]:
        """The columns in their order, as far as they have been met."""

    def default_types(self) -> Mapping[str, ColumnType]:
        """Types of columns as the source declares them: they count for those that have no value at all."""
        return {}

    def unread(self) -> list[str]:
        """What lies beside and is not read."""
        return []

    def refuse_change(self) -> None:  # noqa: B027  (most cannot know)
        """UserError if the source is known to have changed since it was opened."""

    def close(self) -> None:  # noqa: B027
        """Close what was opened."""


def refuse_unknown(words: Mapping[str, object] | list[str], names: list[str], option: str) -> None:
    """UserError if an option names a column that the source does not have."""
    for name in words:
        if name not in names:
            raise UserError(f"{option} names {quoted(name)}, which is not a column: {nearest(name, names)}.")


class Changed(UserError):
    """The source is not what it was when it was read first."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} was changed while it was read.", "Wait until nobody writes to it, then repeat the command."
        )
