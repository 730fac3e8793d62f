from __future__ import annotations

import ast
import math
import struct
import subprocess
import sys
import threading
import time
import zlib
from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems.spool import folder as spool
from ems.spool.batch import Batch, Column, Mark
from ems.spool.encoding import ERROR_BYTES, SpoolError
from ems.spool.folder import Spool

VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True),
    "text": st.text(st.characters(exclude_categories=["Cs"])),
    "bool": st.booleans(),
}


PARAMETERS = st.dictionaries(st.text(max_size=5), st.one_of(*VALUES.values(), st.none()), max_size=4)
MARKS = st.builds(
    Mark,
    point=st.integers(0, 2**62),
    state=st.sampled_from(["failed", "empty"]),
    parameters=PARAMETERS,
    error=st.text(st.characters(exclude_categories=["Cs"])),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows = draw(st.integers(0, 20))
    columns = []
    for name in draw(st.lists(st.text(st.characters(exclude_categories=["Cs"])), unique=True, max_size=4)):
        type_ = draw(st.sampled_from(sorted(VALUES)))
        value = VALUES[type_] | st.none() if draw(st.booleans()) else VALUES[type_]
        columns.append(Column(name, type_, draw(st.lists(value, min_size=rows, max_size=rows))))
    replaces = tuple(draw(st.lists(st.integers(0, 2**62), max_size=3)))
    marks = tuple(draw(st.lists(MARKS, max_size=3)))
    return Batch(array("q", [7] * rows), array("q", range(rows)), tuple(columns), replaces, marks)


def bits(value: object) -> object:
    """Doubles by their bits (-0.0 is not 0.0), any NaN as one; all else by type and value."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return type(value), value


def same(one: Batch, other: Batch) -> bool:
    def plain(batch: Batch) -> object:
        columns = [(c.name, c.type, [bits(value) for value in c.values]) for c in batch.columns]
        marks = [
            (mark.point, mark.state, {name: bits(value) for name, value in mark.parameters.items()}, mark.error)
            for mark in batch.marks
        ]
        return list(batch.points), list(batch.rows), columns, batch.replaces, marks

    return plain(one) == plain(other)


def numbers(*values: int) -> Batch:
    count = len(values)
    return Batch(array("q", bytes(8 * count)), array("q", range(count)), (Column("n", "int64", array("q", values)),))


def marked(*marks: Mark) -> Batch:
    return Batch(array("q"), array("q"), (), (), marks)


@given(batches())
def test_what_is_decoded_is_what_was_encoded(batch: Batch) -> None:
    assert same(spool.decode(spool.encode(batch)), batch)


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 0.1, 1.7976931348623157e308, 2.2250738585072014e-308]
)
def test_doubles_are_exact(value: float) -> None:
    batch = Batch(array("q", [0]), array("q", [0]), (Column("x", "float64", array("d", [value])),))
    (decoded,) = spool.decode(spool.encode(batch)).columns[0].values
    assert bits(decoded) == bits(value)


def test_columns_without_nulls_come_back_as_arrays() -> None:
    batch = Batch(
        array("q", [0, 0]),
        array("q", [0, 1]),
        (Column("i", "int64", [1, 2]), Column("d", "float64", [1.5, 2.5]), Column("gap", "int64", [None, 3])),
    )
    whole, doubles, gap = (column.values for column in spool.decode(spool.encode(batch)).columns)
    assert whole == array("q", [1, 2])
    assert doubles == array("d", [1.5, 2.5])
    assert gap == [None, 3]


def test_the_format_is_the_documented_one() -> None:
    data = spool.encode(Batch(array("q", [4]), array("q", [2]), (Column("t", "text", ["é"]),), (4,)))
    magic, _, length = struct.unpack_from("<8sII", data)
    assert magic == b"EMSBAT01"
    assert data[16 : 16 + length] == (
        b'{"rows": 1, "replaces": [4], "columns": [{"name": "t", "type": "text", "nulls": false}], "marks": []}'
    )
    assert data[16 + length :] == struct.pack("<qqqq", 4, 2, 0, 2) + "é".encode()


def header_of(data: bytes) -> bytes:
    (length,) = struct.unpack_from("<I", data, 12)
    return data[16 : 16 + length]


def test_marks_are_valid_json_with_exact_parameters() -> None:
    parameters = {"a": math.nan, "b": -math.inf, "c": 0.1, "d": -0.0, "e": "nan", "f": 2**63 - 1, "g": True}
    header = header_of(spool.encode(marked(Mark(3, "failed", parameters, "no"))))
    assert header == (
        b'{"rows": 0, "replaces": [], "columns": [], "marks": [{"point": 3, "state": "failed", "parameters": '
        b'{"a": {"float64": "nan"}, "b": {"float64": "-inf"}, "c": 0.1, "d": -0.0, "e": "nan", '
        b'"f": 9223372036854775807, "g": true}, "error": "no"}]}'
    )


def test_a_file_from_before_there_were_marks_is_read() -> None:
    header = b'{"rows": 1, "replaces": [4], "columns": []}'
    body = struct.pack("<I", len(header)) + header + struct.pack("<qq", 4, 0)
    decoded = spool.decode(struct.pack("<8sI", b"EMSBAT01", zlib.crc32(body)) + body)
    assert decoded == Batch(array("q", [4]), array("q", [0]), (), (4,), ())


@pytest.mark.parametrize(
    "error", ["Traceback\n" + "é" * 10_000_000 + "\nValueError: x", "Traceback\n" + "x" * 4087 + "\nValueError: x"]
)
def test_a_long_traceback_keeps_its_beginning_and_end(error: str) -> None:
    (kept,) = spool.decode(spool.encode(marked(Mark(0, "failed", {}, error)))).marks
    assert 4000 < len(kept.error.encode()) <= ERROR_BYTES
    assert kept.error.startswith("Traceback\n")
    assert kept.error.endswith("\nValueError: x")
    assert "\n...\n" in kept.error
    assert spool.decode(spool.encode(marked(kept))).marks == (kept,)


def test_an_error_that_just_fits_is_whole() -> None:
    error = "x" * (ERROR_BYTES - 2) + "é"
    (kept,) = spool.decode(spool.encode(marked(Mark(0, "failed", {}, error)))).marks
    assert kept.error == error


def test_numbers_in_an_array_of_the_other_type_are_turned_into_those_of_the_column() -> None:
    column = Column("x", "float64", array("q", [1, 2]))
    decoded = spool.decode(spool.encode(Batch(array("q", [0, 1]), array("q", [0, 0]), (column,))))
    assert repr(decoded.columns[0].values) == "array('d', [1.0, 2.0])"


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_a_file_that_ends_before_its_header_is_truncated_though_its_checksum_fits(body: bytes) -> None:
    with pytest.raises(SpoolError, match="truncated"):
        spool.decode(struct.pack("<8sI", b"EMSBAT01", zlib.crc32(body)) + body)


def test_an_error_that_is_no_unicode_is_kept_readable() -> None:
    (kept,) = spool.decode(spool.encode(marked(Mark(0, "failed", {"t": "\ud800"}, "bad name: \udcff")))).marks
    assert (kept.error, kept.parameters) == ("bad name: \\udcff", {"t": "\ud800"})


def test_parameters_of_other_types_are_refused() -> None:
    with pytest.raises(SpoolError, match=r"cannot be written(.|\n)*Python's int, float"):
        spool.encode(marked(Mark(0, "empty", {"a": b"bytes"})))  # type: ignore[dict-item]


def test_what_was_encoded_elsewhere_is_appended(tmp_path: Path) -> None:
    target = Spool(tmp_path)
    target.write(numbers(1))
    target.write_encoded(spool.encode(marked(Mark(5, "empty", {"a": 1}))))
    assert [spool.read(path).marks for path in target.waiting()] == [(), (Mark(5, "empty", {"a": 1}),)]


def test_nulls_are_bits() -> None:
    values = [None, True, None, True, True, True, True, True, None]
    data = spool.encode(Batch(array("q", bytes(72)), array("q", range(9)), (Column("b", "bool", values),)))
    assert data[-11:-9] == bytes([0b00000101, 0b1])


def test_a_wide_and_a_long_batch_are_quick() -> None:
    ones = array("d", [0.5]) * 100
    wide = Batch(
        array("q", bytes(800)), array("q", range(100)), tuple(Column(f"c{i}", "float64", ones) for i in range(1000))
    )
    text = [f"row {i}" for i in range(100_000)]
    long = Batch(array("q", bytes(800_000)), array("q", range(100_000)), (Column("t", "text", text),))
    began = time.process_time()
    assert len(spool.decode(spool.encode(wide)).columns) == 1000
    assert spool.decode(spool.encode(long)).columns[0].values == text
    assert time.process_time() - began < 5  # some 0.05 s; a loop with quadratic cost would take minutes


@pytest.mark.parametrize("cut", [0, 5, 15, 16, 60, -1])
def test_a_truncated_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "00000001.batch"
    path.write_bytes(spool.encode(numbers(1, 2, 3))[:cut])
    with pytest.raises(SpoolError, match=r"00000001\.batch.*truncated"):
        spool.read(path)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_bit_goes_unseen(position: int, change: int) -> None:
    data = bytearray(spool.encode(numbers(1, 2, 3)))
    data[position % len(data)] ^= change
    with pytest.raises(SpoolError):
        spool.decode(bytes(data))


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (Column("n", "int64", [2**63]), "'n' has a value that is not int64"),
        (Column("n", "int64", ["x"]), "'n' has a value that is not int64"),
        (Column("t", "text", ["\ud800"]), "'t' has a value that is not text"),
        (Column("n", "int64", [1, 2]), "'n' has 2 values for 1 rows"),
    ],
)
def test_what_does_not_fit_is_refused(column: Column, problem: str) -> None:
    with pytest.raises(SpoolError, match=problem):
        spool.encode(Batch(array("q", [0]), array("q", [0]), (column,)))


def test_batches_wait_in_the_order_of_writing(tmp_path: Path) -> None:
    written = Spool(tmp_path / "spool")
    for number in range(12):
        written.write(numbers(number))
    assert [spool.read(path).columns[0].values[0] for path in written.waiting()] == list(range(12))
    assert written.waiting()[0].name == "00000001.batch"
    assert written.waiting_bytes() == sum(path.stat().st_size for path in (tmp_path / "spool").iterdir())


def test_a_folder_is_made_with_those_above_it_and_what_went_away_has_no_bytes(tmp_path: Path) -> None:
    made = Spool(tmp_path / "runs" / "one" / "spool")
    (made.folder / "00000001.batch").symlink_to("stored-and-removed-meanwhile")
    assert made.waiting() == []
    assert spool._size(made.folder / "00000001.batch") == made.waiting_bytes() == 0


def test_a_second_writer_goes_on_behind_the_first(tmp_path: Path) -> None:
    Spool(tmp_path).write(numbers(1))
    (tmp_path / "00000002.batch.tmp").write_bytes(b"half a bat")
    again = Spool(tmp_path)
    assert not list(tmp_path.glob("*.tmp"))
    again.write(numbers(2))
    assert [path.name for path in again.waiting()] == ["00000001.batch", "00000002.batch"]


def test_a_failed_write_leaves_the_spool_as_it_was(tmp_path: Path) -> None:
    target = Spool(tmp_path)
    (tmp_path / "00000001.batch.tmp").mkdir()
    with pytest.raises(OSError, match=r"00000001\.batch\.tmp"):
        target.write(numbers(1))
    (tmp_path / "00000001.batch.tmp").rmdir()
    target.write(numbers(2))
    assert [path.name for path in target.waiting()] == ["00000001.batch"]


def test_the_module_is_python_3_9_and_standard_library_alone() -> None:
    source = Path(spool.__file__).read_text()
    ast.parse(source, feature_version=(3, 9))
    script = "import sys; import ems.spool.folder; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True).stdout
    foreign = {name.partition(".")[0] for name in loaded.split()} - sys.stdlib_module_names - {"ems", "__main__"}
    assert {name for name in foreign if not name.startswith("_")} == set()


def test_bytes_are_counted_while_batches_come_and_go(tmp_path):
    waiting = Spool(tmp_path / "spool")
    stopping = threading.Event()

    def come_and_go():
        while not stopping.is_set():
            waiting.write(Batch(array("q", [0]), array("q", [0]), ()))
            for path in waiting.waiting():
                path.unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        seen = {waiting.waiting_bytes() for _ in range(3000)}
    finally:
        stopping.set()
        other.join()
    assert 0 in seen
    waiting.write(Batch(array("q", [0]), array("q", [0]), ()))
    assert waiting.waiting_bytes() > 0
