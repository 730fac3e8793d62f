"""The rows that a proposer is given: what the database has of the rounds before, read from files when it is asked for.

A round's rows are batches `ROUND-NUMBER.batch` of a folder, which the agent has written; its failed points are marks in
them. Standard library alone, Python 3.9 or newer; pandas, polars and pyarrow are loaded where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ems.spool import folder
from ems.spool.batch import Batch, ColumnType, Value

KEYS: dict[str, ColumnType] = {"point": "int64", "row": "int64"}
PANDAS = {"int64": "Int64", "float64": "float64", "text": "object", "bool": "boolean"}


@dataclass(frozen=True)
class StoredRound:
    """A round that is over: its points are numbered from `first` on; `files`, `rows` and `failed`: how many."""

    number: int
    first: int
    points: int
    files: int
    rows: int
    failed: int


class Rows:
    """The rows of rounds that are over, in order of points, with parameters and results by name; null is None.

    Nothing is read before it is asked for, and iterating holds one batch in memory. `len(rows)` counts them.
    """

    def __init__(self, folder: Path, rounds: Sequence[StoredRound], types: Mapping[str, ColumnType]) -> None:
        self._folder, self._rounds = folder, tuple(rounds)
        self._types: dict[str, ColumnType] = {**KEYS, **types}

    @property
    def columns(self) -> list[str]:
        """The names of all columns: point, row, then those of parameters and results."""
        return list(self._types)

    @property
    def rounds(self) -> list[int]:
        """The numbers of the rounds that these rows are of."""
        return [each.number for each in self._rounds]

    def of_round(self, number: int) -> Rows:
        """Those of one round; -1 is the last one, -2 the one before it. IndexError if there is none."""
        numbers = self.rounds
        if number not in numbers and not -len(numbers) <= number < 0:
            raise IndexError(f"round {number}: there are rounds {numbers}")
        chosen = self._rounds[numbers.index(number) if number > 0 else number]
        return Rows(self._folder, [chosen], {name: self._types[name] for name in self._types if name not in KEYS})

    def points(self) -> int:
        """How many points there are, with rows or without."""
        return sum(each.points for each in self._rounds)

    def __len__(self) -> int:
        return sum(each.rows for each in self._rounds)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        """Row by row."""
        for columns in self.batches():
            for values in zip(*columns.values()):  # noqa: B905  (not before Python 3.10)
                yield dict(zip(columns, values))  # noqa: B905

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, list[Any]]]:
        """Some thousand rows at a time: a list of values for each column, or for those named. KeyError for others."""
        types = self._wanted(columns)
        for batch in self._read():
            if len(batch):
                yield _values(batch, types)

    def failures(self) -> Iterator[dict[str, Any]]:
        """The points that failed: `point`, `parameters` and `error`, in order."""
        for batch in self._read():
            for mark in batch.marks:
                yield {"point": mark.point, "parameters": dict(mark.parameters), "error": mark.error}

    def to_dict(self, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
        """All rows in memory: a list of values for each column, or for those named."""
        found: dict[str, list[Any]] = {name: [] for name in self._wanted(columns)}
        for batch in self.batches(columns):
            for name, values in batch.items():
                found[name] += values
        return found

    def to_pandas(self, columns: Sequence[str] | None = None) -> Any:
        """All rows as a pandas DataFrame; whole numbers and booleans with nulls are of pandas' types with NA.

        ImportError unless the environment has pandas.
        """
        pandas: Any = import_module("pandas")
        found = self.to_dict(columns)
        kinds = {name: PANDAS[self._types[name]] if None in values else None for name, values in found.items()}
        return pandas.DataFrame({name: pandas.Series(found[name], dtype=kinds[name]) for name in found})

    def to_polars(self, columns: Sequence[str] | None = None) -> Any:
        """All rows as a polars DataFrame. ImportError unless the environment has polars."""
        polars: Any = import_module("polars")
        kinds = {"int64": polars.Int64, "float64": polars.Float64, "text": polars.String, "bool": polars.Boolean}
        found = self.to_dict(columns)
        return polars.DataFrame(found, schema={name: kinds[self._types[name]] for name in found})

    def to_arrow(self, columns: Sequence[str] | None = None) -> Any:
        """All rows as a pyarrow Table. ImportError unless the environment has pyarrow."""
        pyarrow: Any = import_module("pyarrow")
        kinds = {"int64": pyarrow.int64(), "float64": pyarrow.float64()}
        kinds |= {"text": pyarrow.string(), "bool": pyarrow.bool_()}
        schema = pyarrow.schema([(name, kinds[type_]) for name, type_ in self._wanted(columns).items()])
        return pyarrow.table(self.to_dict(columns), schema=schema)

    def _wanted(self, columns: Sequence[str] | None) -> dict[str, ColumnType]:
        if columns is None:
            return self._types
        if isinstance(columns, str):
            columns = [columns]
        if unknown := [name for name in columns if name not in self._types]:
            raise KeyError(f"no column {', '.join(map(repr, unknown))}; there are {', '.join(self._types)}")
        return {name: self._types[name] for name in columns}

    def _read(self) -> Iterator[Batch]:
        for each in self._rounds:
            for number in range(each.files):
                yield folder.read(file_of(self._folder, each.number, number))

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of {self.points():,} points in {len(self._rounds):,} rounds>"


def file_of(folder: Path, number: int, part: int) -> Path:
    """Where a part of a round's rows is."""
    return folder / f"{number:06d}-{part:06d}.batch"


def _values(batch: Batch, types: Mapping[str, ColumnType]) -> dict[str, list[Any]]:
    """A column that came only later is null; numbers that were whole then are doubles if any is now."""
    found: dict[str, Any] = {column.name: column for column in batch.columns}
    values: dict[str, list[Any]] = {}
    for name, type_ in types.items():
        if name in KEYS:
            values[name] = list(batch.points if name == "point" else batch.rows)
        elif name not in found:
            values[name] = [None] * len(batch)
        elif type_ == "float64" and found[name].type == "int64":
            values[name] = [None if value is None else float(value) for value in found[name].values]
        else:
            values[name] = list(found[name].values)
    return values
