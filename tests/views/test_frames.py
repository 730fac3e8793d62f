"""Results as a DataFrame: what pandas makes of the same Arrow table, in little more memory than the frame needs."""

from __future__ import annotations

import subprocess
import sys
from array import array

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from ems.spool.batch import Batch, Column
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
# A frame of 3 million rows from batches as they come from a database; prints its memory and what was taken for it.
MEASURED = """
from array import array
from pathlib import Path
from ems.spool.batch import Batch, Column
from ems.views.frames import to_frame

def batches(count, rows=10_000):
    for n in range(count):
        points = array("q", range(n * rows, n * rows + rows))
        columns = (Column(name, "float64", array("d", points)) for name in "abcdef")
        yield Batch(points, array("q", bytes(8 * rows)), tuple(columns))

def peak():
    status = Path("/proc/self/status").read_text()  # ru_maxrss would begin with that of the process that started it
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

to_frame(batches(1))
before = peak()
frame = to_frame(batches(300))
print(frame.memory_usage(index=False).sum(), peak() - before)
"""


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


@given(streams())
def test_a_frame_is_what_pandas_makes_of_the_table(stream: list[Batch]) -> None:
    frame = to_frame(stream)
    assert_frame_equal(frame, pa.concat_tables(map(to_arrow, stream)).to_pandas())
    for name in frame:
        frame.loc[0, name] = frame.loc[len(frame) - 1, name]  # as its columns are its own


def test_a_frame_without_rows_has_the_keys_alone() -> None:
    frame = to_frame([])
    assert frame.empty and [(name, str(type)) for name, type in frame.dtypes.items()] == [
        ("point", "int64"),
        ("row", "int64"),
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no /proc")
def test_a_frame_takes_little_more_memory_than_it_has() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True)
    frame_bytes, taken_bytes = map(int, done.stdout.split())
    assert taken_bytes < 1.3 * frame_bytes
