"""Results as a DataFrame: what pandas makes of the same Arrow table, in little more memory than the frame needs."""

from __future__ import annotations

import tracemalloc
from array import array
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from ems.spool.batch import Batch, Column
from ems.spool.kinds import EXACT
from ems.views.frames import to_frame
from ems.views.results import to_arrow
from tests.databases.cases import batch

VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(),
    "text": st.text(st.characters(codec="utf-8"), max_size=3),
    "bool": st.booleans(),
}
CODES = {"int64": "q", "float64": "d"}


def column(name: str, kind: str, values: list) -> Column:
    """An array where nothing is null, as databases give it."""
    return Column(name, kind, array(CODES[kind], values) if kind in CODES and None not in values else values)


@st.composite
def streams(draw) -> list[Batch]:
    """Batches of one table, with nulls in some columns or none."""
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=5))
    values = [VALUES[kind] if draw(st.booleans()) else st.none() | VALUES[kind] for kind in kinds]
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    return [
        batch(
            list(range(size)),
            *(
                column(f"c{n}", kind, draw(st.lists(some, min_size=size, max_size=size)))
                for n, (kind, some) in enumerate(zip(kinds, values, strict=True))
            ),
        )
        for size in sizes
    ]


def given_values(stream: list[Batch], name: str) -> list[object]:
    return [value for part in stream for column in part.columns if column.name == name for value in column.values]


def is_exact(values: list[object]) -> bool:
    """Whether pandas, which makes doubles of whole numbers with a null among them, keeps each."""
    return None not in values or all(abs(value) <= EXACT for value in values if isinstance(value, int))


@given(streams())
def test_a_frame_is_what_pandas_makes_of_the_table_where_that_keeps_each_value(stream: list[Batch]) -> None:
    frame, made = to_frame(stream), pa.concat_tables(map(to_arrow, stream)).to_pandas()
    kept = [name for name in frame if name in {"point", "row"} or is_exact(given_values(stream, name))]
    assert list(frame) == list(made)
    assert_frame_equal(frame[kept], made[kept])
    for name in frame:
        frame.loc[0, name] = frame.loc[len(frame) - 1, name]  # as its columns are its own


@given(streams())
def test_no_value_is_changed(stream: list[Batch]) -> None:
    frame = to_frame(stream)
    for column in stream[0].columns:
        found, wanted = list(frame[column.name]), given_values(stream, column.name)
        for value, meant in zip(found, wanted, strict=True):
            assert pd.isna(value) if meant is None or meant != meant else value == meant


def test_a_frame_without_rows_has_the_keys_alone() -> None:
    frame = to_frame([])
    assert frame.empty and [(name, str(type)) for name, type in frame.dtypes.items()] == [
        ("point", "int64"),
        ("row", "int64"),
    ]


def numbers(count: int, rows: int = 10_000) -> Iterator[Batch]:
    for start in range(0, count * rows, rows):
        points = array("q", range(start, start + rows))
        columns = tuple(Column(name, "float64", array("d", points)) for name in "abcdef")
        yield Batch(points, array("q", bytes(8 * rows)), columns)


def test_a_frame_takes_little_more_memory_than_it_has() -> None:
    to_frame(numbers(1))  # what is imported is not the frame's
    tracemalloc.start()
    frame = to_frame(numbers(100))
    taken_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken_bytes < 1.3 * frame.memory_usage(index=False).sum()
