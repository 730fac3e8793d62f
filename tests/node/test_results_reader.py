from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.node.job.results_file import ResultsError
from ems.node.job.results_reader import MAX_ROWS, ResultsReader
from ems.spool.batch import Batch


def append(path: Path, data: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(data.encode() if isinstance(data, str) else data)


def batches(reader: ResultsReader, ended: bool = True) -> Iterator[Batch]:
    while (batch := reader.poll(ended)) is not None:
        yield batch


def table(batch: Batch | None) -> dict[str, tuple[str, list]]:
    return {column.name: (column.type, list(column.values)) for column in batch.columns} if batch else {}


def read(folder: Path, name: str, data: str | bytes) -> dict[str, tuple[str, list]]:
    """The columns of a file that is there as a whole."""
    append(folder / name, data)
    return table(ResultsReader(folder).poll(ended=True))


def test_csv_types(tmp_path: Path) -> None:
    cells = 'i,d,e,b,t,m\n1,1.5,1e-3,TRUE,abc,"7"\n-2,,inf,false,,x\n3,NaN,-Inf,True,naïve,1\n'
    columns = read(tmp_path, "a.csv", cells)
    assert columns["i"] == ("int64", [1, -2, 3])
    assert columns["d"][0] == "float64"
    assert columns["d"][1][:2] == [1.5, None]
    assert math.isnan(columns["d"][1][2])
    assert columns["e"] == ("float64", [1e-3, math.inf, -math.inf])
    assert columns["b"] == ("bool", [True, False, True])
    assert columns["t"] == ("text", ["abc", None, "naïve"])
    assert columns["m"] == ("text", ["7", "x", "1"])


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "NA"], ("int64", [1, None])),
        (["NA", "TRUE"], ("bool", [None, True])),
        (["abc", "NA"], ("text", ["abc", "NA"])),
        (["NA", '"abc"', "NA", '"NA"', '""'], ("text", [None, "abc", None, "NA", ""])),
        (['""', "1"], ("text", ["", "1"])),
        (["9223372036854775807"], ("int64", [2**63 - 1])),
        (["-9223372036854775808"], ("int64", [-(2**63)])),
        (["9223372036854775808"], ("float64", [2.0**63])),
        (["01234", "1"], ("text", ["01234", "1"])),
        (["-01", "00.5"], ("text", ["-01", "00.5"])),
        (['"5"', "1"], ("text", ["5", "1"])),
        (["1e5", "7"], ("float64", [1e5, 7.0])),
        (["nan1", "1"], ("text", ["nan1", "1"])),
        ([" 5", "6\t"], ("int64", [5, 6])),
        (["  0.5", "0"], ("float64", [0.5, 0.0])),
        (["1E5", ".5", "5."], ("float64", [1e5, 0.5, 5.0])),
        (["1_000"], ("text", ["1_000"])),
        (["٣"], ("text", ["٣"])),
        (["1", "2.5"], ("float64", [1.0, 2.5])),
        (["x", "1", "TRUE"], ("text", ["x", "1", "TRUE"])),
        (["0x1F"], ("text", ["0x1F"])),
        (["+5", "-0.0"], ("float64", [5.0, -0.0])),
        (["0", "9007199254740993"], ("int64", [0, 2**53 + 1])),
        (["0.5", "100000000000000000000"], ("float64", [0.5, 1e20])),
    ],
)
def test_the_first_cell_settles_the_type_of_a_csv_column(tmp_path: Path, cells: list[str], expected: tuple) -> None:
    assert read(tmp_path, "a.csv", "\n".join(["x", *cells, ""]))["x"] == expected


def test_csv_quoting_and_line_ends(tmp_path: Path) -> None:
    text = '\ufeffa,"b ""x"", y"\r\n"one\ntwo","say ""hi"""\r\n\r\n"x,y",\r\n'
    assert read(tmp_path, "a.csv", text) == {
        "a": ("text", ["one\ntwo", "x,y"]),
        'b "x", y': ("text", ['say "hi"', None]),
    }


def test_rows_are_numbered_over_polls_and_files(tmp_path: Path) -> None:
    reader = ResultsReader(tmp_path)
    append(tmp_path / "a.csv", "x\n1\n2\n")
    first = reader.poll()
    append(tmp_path / "b.csv", "x,y\n3,4\n")
    append(tmp_path / "c.jsonl", '{"x": 5.5}\n')
    second = reader.poll()
    assert first and list(first.rows) == [0, 1] and list(first.points) == [0, 0]
    assert second and list(second.rows) == [2, 3]
    assert table(second) == {"x": ("float64", [3.0, 5.5]), "y": ("int64", [4, None])}
    assert reader.rows == 4


def test_half_lines_wait(tmp_path: Path) -> None:
    reader, path = ResultsReader(tmp_path), tmp_path / "a.csv"
    append(path, "x,te")
    assert reader.poll() is None
    append(path, "xt\n1,ab")
    assert not reader.poll()
    append(path, '\n2,"half\n')
    assert table(reader.poll()) == {"x": ("int64", [1]), "text": ("text", ["ab"])}
    assert reader.poll() is None
    append(path, 'line"\n3,z')
    assert table(reader.poll()) == {"x": ("int64", [2]), "text": ("text", ["half\nline"])}
    assert reader.poll() is None
    assert table(reader.poll(ended=True)) == {"x": ("int64", [3]), "text": ("text", ["z"])}
    assert reader.poll(ended=True) is None


def test_a_character_cut_in_two_waits(tmp_path: Path) -> None:
    reader, path = ResultsReader(tmp_path), tmp_path / "a.jsonl"
    line = '{"t": "é"}\n'.encode()
    append(path, line[:8])
    assert reader.poll() is None
    append(path, line[8:])
    assert table(reader.poll()) == {"t": ("text", ["é"])}


def test_types_are_remembered(tmp_path: Path) -> None:
    reader, path = ResultsReader(tmp_path), tmp_path / "a.csv"
    append(path, "n,t,u\n1,abc,\n")
    assert table(reader.poll()) == {"n": ("int64", [1]), "t": ("text", ["abc"])}
    append(path, "2.5,7,NA\n")
    assert table(reader.poll()) == {"n": ("float64", [2.5]), "t": ("text", ["7"])}
    append(path, "3,8,true\n")
    assert table(reader.poll()) == {"n": ("float64", [3.0]), "t": ("text", ["8"]), "u": ("bool", [True])}
    append(path, "4,9,false\n5,9,\nabc,9,\n")
    before = {"n": ("float64", [4.0, 5.0]), "t": ("text", ["9", "9"]), "u": ("bool", [False, None])}
    assert table(reader.poll()) == before
    for _ in range(2):
        with pytest.raises(ResultsError, match=r"a\.csv:7: column 'n' is of type number, and \"abc\" is not"):
            reader.poll()


def test_json_types_are_exact(tmp_path: Path) -> None:
    lines = [
        {"i": 1, "d": 1.0, "w": 1, "b": True, "t": "7", "g": 2**63},
        {"i": -(2**63), "d": math.nan, "w": 0.5, "b": None, "t": None, "g": 10**20},
        {"d": -math.inf, "n": None},
    ]
    columns = read(tmp_path, "a.ndjson", "\n\n".join(map(json.dumps, lines)))
    assert columns["i"] == ("int64", [1, -(2**63), None])
    assert columns["d"][1][0] == 1.0 and math.isnan(columns["d"][1][1]) and columns["d"][1][2] == -math.inf
    assert columns["w"] == ("float64", [1.0, 0.5, None])
    assert columns["b"] == ("bool", [True, None, None])
    assert columns["t"] == ("text", ["7", None, None])
    assert columns["g"] == ("float64", [2.0**63, 1e20, None])
    assert "n" not in columns


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("plot.png", ".hidden.csv", "a.csv.tmp"):
        append(tmp_path / name, b"\xff\xff")
    assert ResultsReader(tmp_path).poll(ended=True) is None


def test_parquet_is_read_when_it_is_closed(tmp_path: Path) -> None:
    whole = pa.table(
        {
            "i": pa.array([1, None, 3], pa.int32()),
            "d": pa.array([0.1, math.inf, -0.0]),
            "t": pa.array(["a", None, "ü"]).dictionary_encode(),
            "b": [True, False, None],
            "f": pa.array([0.5, 0.25, 1.0], pa.float32()),
            "none": pa.nulls(3),
        }
    )
    reader = ResultsReader(tmp_path)
    with pq.ParquetWriter(tmp_path / "a.parquet", whole.schema) as writer:
        writer.write_table(whole)
        assert reader.poll() is None
    columns = table(reader.poll())
    assert columns["i"] == ("int64", [1, None, 3])
    assert columns["d"][1][:2] == [0.1, math.inf] and math.copysign(1, columns["d"][1][2]) == -1
    assert columns["t"] == ("text", ["a", None, "ü"])
    assert columns["b"] == ("bool", [True, False, None])
    assert columns["f"] == ("float64", [0.5, 0.25, 1.0])
    assert "none" not in columns
    assert reader.poll() is None
    pq.write_table(whole.slice(1), tmp_path / "a.parquet")
    with pytest.raises(ResultsError, match="rewritten or removed"):
        reader.poll()


def test_a_large_parquet_file_comes_in_pieces(tmp_path: Path) -> None:
    count = 2 * MAX_ROWS + 5
    pq.write_table(
        pa.table({"x": pa.array(range(count)), "u": pa.array(range(count), pa.uint64())}), tmp_path / "a.parquet"
    )
    parts = list(batches(ResultsReader(tmp_path)))
    assert max(len(part) for part in parts) <= MAX_ROWS
    assert [row for part in parts for row in part.rows] == list(range(count))
    assert [value for part in parts for value in part.columns[0].values] == list(range(count))


@pytest.mark.parametrize(("values", "type"), [([[1.0, 2.0]], "list"), ([timedelta(1)], "duration")])
def test_parquet_of_other_types_is_refused(tmp_path: Path, values: list[object], type: str) -> None:
    pq.write_table(pa.table({"v": values}), tmp_path / "a.parquet")
    with pytest.raises(ResultsError, match=rf"a\.parquet: column 'v' is of type {type}(.|\n)*dates or times"):
        ResultsReader(tmp_path).poll()


def test_decimals_of_parquet_are_the_numbers_that_they_are(tmp_path: Path) -> None:
    columns = {
        "d": pa.array([Decimal("1.5"), None, Decimal("0.1")], pa.decimal128(3, 1)),
        "i": pa.array([Decimal(2**60), None, Decimal(-1)], pa.decimal128(38, 0)),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert table(ResultsReader(tmp_path).poll()) == {
        "d": ("float64", [1.5, None, 0.1]),
        "i": ("int64", [2**60, None, -1]),
    }
    pq.write_table(pa.table({"d": [Decimal("0.1234567890123456789")]}), tmp_path / "b.parquet")
    with pytest.raises(ResultsError, match=r"b\.parquet: column 'd' is 0\.123.* more digits than a double keeps"):
        list(batches(ResultsReader(tmp_path)))


def test_half_floats_and_small_integers_of_parquet_are_exact(tmp_path: Path) -> None:
    columns = {"h": pa.array(np.array([0.1, 2.0], np.float16)), "u": pa.array([255, 0], pa.uint8())}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert table(ResultsReader(tmp_path).poll()) == {
        "h": ("float64", [0.0999755859375, 2.0]),
        "u": ("int64", [255, 0]),
    }


def test_dates_and_times_are_text(tmp_path: Path) -> None:
    noon = datetime(2026, 1, 31, 12)
    winter = noon.replace(tzinfo=ZoneInfo("Europe/Berlin"))
    columns = {
        "ms": pa.array([noon, None], pa.timestamp("ms")),
        "ns": pa.array([noon, None], pa.timestamp("ns")),
        "zoned": pa.array([winter, None], pa.timestamp("us", "Europe/Berlin")),
        "day": pa.array([noon.date(), None]),
        "at": pa.array([noon.time(), None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert table(ResultsReader(tmp_path).poll(ended=True)) == {
        "ms": ("text", ["2026-01-31 12:00:00.000", None]),
        "ns": ("text", ["2026-01-31 12:00:00.000000000", None]),
        "zoned": ("text", ["2026-01-31 11:00:00.000000+00:00", None]),
        "day": ("text", ["2026-01-31", None]),
        "at": ("text", ["12:00:00.000000", None]),
    }


def test_dates_and_times_in_text_stay_as_they_are(tmp_path: Path) -> None:
    written = ("text", ["2026-01-31T12:00:00Z"])
    (tmp_path / "json").mkdir()
    assert read(tmp_path, "a.csv", "t\n2026-01-31T12:00:00Z\n") == {"t": written}
    assert read(tmp_path / "json", "a.jsonl", '{"t": "2026-01-31T12:00:00Z"}\n') == {"t": written}


def test_a_large_file_is_read_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    line = ",".join(["0.123456789"] * 100) + "\n"
    path.write_text(",".join(f"c{i}" for i in range(100)) + "\n" + line * 25_000)
    reader = ResultsReader(tmp_path)
    tracemalloc.start()
    sizes = [len(batch) for batch in batches(reader)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(sizes) == 25_000 and max(sizes) <= MAX_ROWS
    assert peak < 4 * path.stat().st_size  # read at once it takes some fifteen times the file's size


WRITER = """
import csv, sys, time
with open(sys.argv[1], "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["n", "text"])
    for n in range(3000):
        writer.writerow([n, f'line {n}\\nand "more"'])
"""


def test_a_file_is_read_while_another_process_writes_it(tmp_path: Path) -> None:
    reader = ResultsReader(tmp_path)
    found: list[Batch] = []
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "a.csv"]) as writer:
        while writer.poll() is None:
            found += batches(reader, ended=False)
    found += batches(reader)
    assert [v for batch in found for v in batch.columns[0].values] == list(range(3000))
    assert [v for batch in found for v in batch.columns[1].values] == [f'line {n}\nand "more"' for n in range(3000)]


CELL = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(
    st.lists(st.tuples(CELL, st.integers(-(2**63), 2**63 - 1), st.floats()), min_size=1, max_size=12),
    st.integers(1, 30),
)
def test_csv_round_trip_in_pieces(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple], piece: int) -> None:
    folder = tmp_path_factory.mktemp("results")
    whole = folder / "whole"
    with whole.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows([("t", "i", "d"), ("text", 0, 0.5), *rows])
    data = whole.read_bytes()
    reader, found = ResultsReader(folder), []
    for begin in range(0, len(data), piece * 10):
        append(folder / "a.csv", data[begin : begin + piece * 10])
        found += batches(reader, ended=False)
    values: dict[str, list] = {"t": [], "i": [], "d": []}
    for batch in found:
        for column in batch.columns:
            values[column.name] += column.values
    assert values["t"] == ["text", *[text for text, _, _ in rows]]
    assert values["i"] == [0, *[i for _, i, _ in rows]]
    assert [repr(d) for d in values["d"]] == ["0.5", *[repr(d) for _, _, d in rows]]
