"""What is read of a results file does not depend on when it is read: the same rows and the same refusal, and no value
other than the one that was written.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.node.job import results_reader
from ems.node.job.results_file import ResultsError
from ems.node.job.results_reader import ResultsReader
from ems.spool.batch import ColumnType

Read = tuple[dict[str, list[Any]], dict[str, str], str]
INTEGERS = st.one_of(
    st.integers(-3, 3),
    st.integers(2**53 - 2, 2**53 + 3),
    st.integers(2**63 - 2, 2**63 + 2),
    st.sampled_from([2**64 - 1, 2**64, 10**20, 10**23, -(2**63), -(2**63) - 1, 10**400]),
)
FLOATS = st.sampled_from([0.5, 1e300, -0.0, math.inf, math.nan, 2.0**60])
VALUES = st.one_of(INTEGERS, FLOATS, st.sampled_from([None, True, "x", "1", ""]))
CELLS = st.one_of(
    st.sampled_from(["", "NA", '"NA"', '""', "x", '"1"', "01", " 2", "-0", "1e5", "1e400", "nan", "TRUE", "+7", '5" ']),
    INTEGERS.map(str),
    FLOATS.map(repr),
)
CUTS = st.lists(st.integers(0, 120), max_size=8)
FOLDERS = itertools.count()


def grown(folder: Path, name: str, data: bytes, cuts: list[int], declared: dict[str, ColumnType] | None = None) -> Read:
    """The values and types of a file's columns, and the refusal, where it is read after each piece of it was written.

    A column's type is the last one that it had; null where a batch has no such column.
    """
    reader, refusal = ResultsReader(folder, declared), ""
    columns: dict[str, list[Any]] = {}
    types: dict[str, str] = {}
    ends = [0, *sorted(cuts), len(data)]
    (folder / name).touch()
    for step, (begin, end) in enumerate(itertools.pairwise(ends), 1):
        with (folder / name).open("ab") as file:
            file.write(data[begin:end])
        try:
            while (batch := reader.poll(ended=step == len(ends) - 1)) is not None:
                before = reader.rows - len(batch)
                for column in batch.columns:
                    values = columns.setdefault(column.name, [])
                    values += [None] * (before - len(values))
                    values += column.values
                    types[column.name] = column.type
        except ResultsError as error:
            refusal = str(error)
    whole = {name: [*values, *[None] * (reader.rows - len(values))] for name, values in columns.items()}
    return whole, types, refusal


def canonical(read: Read) -> object:
    """NaN equal to itself, -0.0 not to 0, 1 to 1.0."""
    columns, types, refusal = read
    shown = {
        name: [repr(float(v)) if types[name] == "float64" and v is not None else v for v in values]
        for name, values in columns.items()
    }
    return shown, types, refusal.replace(str(Path(refusal.partition(":")[0]).parent), "")


def same_at_any_time(name: str, data: bytes, cuts: list[int], root: Path, declared: Any = None) -> Read:
    folders = [root / str(next(FOLDERS)) for _ in range(3)]
    for folder in folders:
        folder.mkdir()
    whole = grown(folders[0], name, data, [], declared)
    line_ends = [at + 1 for at, byte in enumerate(data) if byte == ord("\n")]
    for folder, some in zip(folders[1:], (cuts, line_ends), strict=True):
        assert canonical(grown(folder, name, data, some, declared)) == canonical(whole)
    for folder in folders:
        shutil.rmtree(folder)
    return whole


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("polls")


@given(st.lists(st.tuples(CELLS, CELLS), max_size=6), CUTS)
def test_csv(root: Path, rows: list[tuple[str, str]], cuts: list[int]) -> None:
    data = "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows)
    columns, _, refusal = same_at_any_time("a.csv", data.encode(), cuts, root)
    assert refusal or all(len(values) == len(rows) for values in columns.values())
    for name, cells in zip("ab", zip(*rows, strict=True), strict=False):
        for value, cell in zip(columns.get(name, []), cells, strict=False):
            if value is not None:
                assert as_written(value, cell)


def as_written(value: Any, cell: str) -> bool:
    if isinstance(value, str):
        return value == (cell[1:-1] if cell.startswith('"') else cell)
    if isinstance(value, bool):
        return str(value).upper() == cell
    whole = re.fullmatch(r"\s*[+-]?\d+\s*", cell)
    return value == int(cell) if whole else repr(float(value)) == repr(float(cell))


@given(st.lists(st.tuples(CELLS, CELLS), max_size=6), CUTS, st.sampled_from(["text", "int64", "float64", "bool"]))
def test_csv_with_a_declared_type(root: Path, rows: list[tuple[str, str]], cuts: list[int], type_: ColumnType) -> None:
    data = "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows)
    columns, types, refusal = same_at_any_time("a.csv", data.encode(), cuts, root, {"a": type_})
    assert types.get("a", type_) == type_
    if type_ == "text" and not refusal:
        cells = [a if a[:1] != '"' else a[1:-1] for a, _ in rows]
        assert [value or "" for value in columns.get("a", [])] == cells


@given(st.lists(st.tuples(VALUES, VALUES), max_size=6), CUTS)
def test_json_lines(root: Path, rows: list[tuple[Any, Any]], cuts: list[int]) -> None:
    data = "".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows)
    columns, _, refusal = same_at_any_time("a.jsonl", data.encode(), cuts, root)
    for name, written in zip("ab", zip(*rows, strict=True), strict=False):
        for value, wanted in zip(columns.get(name, []), written, strict=False):
            assert value == wanted or (value != value and wanted != wanted)
            assert isinstance(value, bool) == isinstance(wanted, bool)
        assert refusal or len(columns.get(name, rows)) == len(rows)


@given(st.lists(st.one_of(INTEGERS.filter(lambda n: 0 <= n < 2**64), st.none()), max_size=6), st.integers(1, 4))
def test_parquet(root: Path, values: list[int | None], step: int) -> None:
    found: list[Read] = []
    for most_rows in (results_reader.MAX_ROWS, step):
        folder = root / str(next(FOLDERS))
        folder.mkdir()
        pq.write_table(pa.table({"a": pa.array(values, pa.uint64())}), folder / "a.parquet")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results_reader, "MAX_ROWS", most_rows)
            found.append(grown(folder, "a.parquet", b"", []))
    (whole, _, refusal), (_, _, other) = found
    assert refusal.partition("a.parquet")[2] == other.partition("a.parquet")[2]
    if not refusal:
        assert canonical(found[0]) == canonical(found[1])
        assert whole.get("a", values) == values
