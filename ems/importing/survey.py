"""The first reading of a source: how many rows of which columns there are, and whether all of them can be kept."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ems.base.errors import DatabaseError, UserError
from ems.databases import columns as meeting
from ems.importing.source import Reading, Source, refuse_unknown
from ems.node.job.columns import KnownTypes
from ems.node.job.results_file import Chunk
from ems.spool.batch import Batch, Column, ColumnType, Value
from ems.spool.kinds import Values, column, is_exact

Show = Callable[[float], None]
SAMPLES: dict[ColumnType, Value] = {"int64": 0, "float64": 0.5, "text": "x", "bool": True}


@dataclass(frozen=True)
class Survey:
    """What a source has. `columns`: types by the source's names, in the order in which they are stored.

    `left_out`: columns without any value, whose type nothing says. `digest`: of the content; `sample`: a row of the
    columns, under the names that they will have, whose values are the hardest to store.
    """

    rows: int
    columns: dict[str, ColumnType]
    renamed: dict[str, str]
    left_out: tuple[str, ...]
    digest: str
    sample: Batch

    def types(self) -> dict[str, ColumnType]:
        """The columns under the names that they will have."""
        return {self.renamed[name]: type for name, type in self.columns.items()}


def survey(source: Source, reading: Reading, parameters: Sequence[str], show: Show) -> Survey:
    """Read all of a source. `parameters`: columns that come first; `show` hears how much was read, from 0 to 1.

    UserError for what cannot be kept, for unknown or impossible names of columns, and for a source without rows.
    """
    types, hard = KnownTypes(reading.types), _Hard()
    rows, done = 0, 0
    for chunk in source.chunks(types):
        hard.look(chunk, types)
        rows, done = rows + chunk.rows, done + chunk.size
        show(min(done / source.size, 1.0) if source.size else 0.0)
    source.refuse_change()
    if not rows:
        raise UserError(f"{source.name} has no rows.", "There is nothing to import.")
    names, known = source.names(), _settled(source, types)
    for words, option in ((reading.types, "--type"), (reading.renamed, "--rename")):
        refuse_unknown(words, names, option)
    renamed = {name: reading.renamed.get(name, name) for name in names}
    order = _ordered(renamed, parameters)
    found = {name: known[name] for name in order if name in known}
    refuse_names([renamed[name] for name in found], {new: old for old, new in renamed.items()})
    left_out = tuple(name for name in names if name not in known)
    digest = source.digest() or source.rows_digest()
    return Survey(rows, found, renamed, left_out, digest, hard.sample(found, renamed))


def _settled(source: Source, types: KnownTypes) -> dict[str, ColumnType]:
    settled: dict[str, ColumnType] = {name: "int64" if kind == "giant" else kind for name, kind in types.known.items()}
    return {**source.default_types(), **settled, **types.declared}


def _ordered(renamed: dict[str, str], parameters: Sequence[str]) -> list[str]:
    """The source's names, those of parameters first."""
    back = {new: old for old, new in renamed.items()}
    refuse_unknown(list(parameters), list(back), "--parameters")
    first = [back[name] for name in parameters]
    return list(dict.fromkeys([*first, *renamed]))


def refuse_names(names: Sequence[str], sources: dict[str, str]) -> None:
    """UserError for names that no results table can have, with how to rename them; `sources`: the source's names."""
    try:
        meeting.check_names("", {}, names)
    except DatabaseError as error:
        bad = next((name for name in names if repr(name) in error.message), "")
        what = error.message.partition(": ")[2]
        raise UserError(what, f"Rename it: --rename '{sources.get(bad, bad)}={bad or 'column'}_'") from error


@dataclass
class _Hard:
    """Values that some databases do not take: NUL in text, integers that are not exact doubles."""

    values: dict[str, Value] = field(default_factory=dict)

    def look(self, chunk: Chunk, types: KnownTypes) -> None:
        for each in chunk.columns:
            if each.name in self.values:
                continue
            if each.type == "text":
                self._note(each, lambda value: "\0" in value)
            elif types.known.get(each.name) == "giant" or each.name in types.declared:
                self._note(each, lambda value: isinstance(value, int) and not is_exact(value))

    def _note(self, of: Column, is_hard: Callable[[Any], bool]) -> None:
        found = next((value for value in of.values if value is not None and is_hard(value)), None)
        if found is not None:
            self.values[of.name] = found

    def sample(self, types: dict[str, ColumnType], renamed: dict[str, str]) -> Batch:
        columns = tuple(
            Column(renamed[name], type, [self.values.get(name, SAMPLES[type])]) for name, type in types.items()
        )
        return Batch(array("q", [0]), array("q", [0]), columns)


def batches(source: Source, reading: Reading, surveyed: Survey) -> Iterator[Batch]:
    """All rows as they are stored: point 0, numbered from 0, each column with its final type in each batch."""
    first = 0
    for chunk in source.chunks(KnownTypes(reading.types)):
        if chunk.rows:
            yield _batch(chunk, first, surveyed)
        first += chunk.rows


def _batch(chunk: Chunk, first: int, surveyed: Survey) -> Batch:
    found = {each.name: each.values for each in chunk.columns}
    empty: list[Value] = [None] * chunk.rows
    columns = tuple(
        _typed(surveyed.renamed[name], type, found.get(name, empty)) for name, type in surveyed.columns.items()
    )
    return Batch(array("q", bytes(8 * chunk.rows)), array("q", range(first, first + chunk.rows)), columns)


def _typed(name: str, type: ColumnType, values: Values) -> Column:
    return column(name, type, values)
