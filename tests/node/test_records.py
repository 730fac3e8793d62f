"""Records of CSV are those of `csv.reader` over the whole file, and lines those of the file, however it comes."""

from __future__ import annotations

import csv
import io
import itertools
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ems.node.job import records
from ems.node.job.columns import KnownTypes
from ems.node.job.csv_file import CsvFile
from ems.node.job.records import Record, Records
from ems.node.job.results_file import ResultsError

TEXTS = st.text(st.sampled_from(list('",\n\r \ta1é')), max_size=60)
CUTS = st.lists(st.integers(0, 80), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [0, *sorted(cuts), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(ends)]


def split(data: bytes, cuts: list[int], quoted: bool) -> list[Record]:
    found = Records(Path("a.csv"), quoted)
    for piece in pieces(data, cuts):
        found.feed(piece)
    found.finish()
    return list(found.ready)


def strictly(text: str) -> tuple[list[list[str]], bool]:
    """The rows that `csv.reader` reads of a whole file, and whether it refuses what follows."""
    rows: list[list[str]] = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            rows.append(row)
    except csv.Error:
        return rows, True
    return rows, False


@given(TEXTS, CUTS)
@settings(max_examples=500)
def test_records_of_csv_are_those_of_csv_reader(text: str, cuts: list[int]) -> None:
    found = split(text.encode(), cuts, quoted=True)
    assert b"".join(record.data for record in found) == text.encode()
    rows, refused = strictly(text)
    for record, row in zip(found, rows, strict=False):
        assert next(csv.reader([record.data.decode()], strict=True), []) == row
    assert refused or len(found) == len(rows)
    if refused:
        with pytest.raises(csv.Error):
            next(csv.reader([found[len(rows)].data.decode()], strict=True))


@given(TEXTS, CUTS)
@example('","', [])
@settings(max_examples=500)
def test_cells_are_those_of_csv_reader_and_marked_where_they_are_quoted(text: str, cuts: list[int]) -> None:
    file = CsvFile(Path("a.csv"), KnownTypes())
    rows, _ = strictly(text)
    for record, row in zip(split(text.encode(), cuts, quoted=True), rows, strict=False):
        cells = file._split(record)
        assert [cell.removeprefix("\ud800") for cell in cells] == row
        again = ",".join('"' + cell[1:].replace('"', '""') + '"' if cell[:1] == "\ud800" else cell for cell in cells)
        assert again == record.data.decode().rstrip("\r\n")


@given(TEXTS, CUTS)
def test_lines_are_those_of_the_file(text: str, cuts: list[int]) -> None:
    found = split(text.encode(), cuts, quoted=False)
    assert [record.data for record in found] == io.BytesIO(text.encode()).readlines()
    assert [record.line for record in found] == list(range(1, len(found) + 1))


def test_a_record_has_the_number_of_its_first_line() -> None:
    found = split(b'a\r\n"1\n2\r3"\r"4"\n\n5', [3, 7], quoted=True)
    assert [(record.line, record.data) for record in found] == [
        (1, b"a\r\n"),
        (2, b'"1\n2\r3"\r'),
        (5, b'"4"\n'),
        (6, b"\n"),
        (7, b"5"),
    ]


def test_the_work_grows_with_the_bytes_alone() -> None:
    """A quote that is never closed: each block is looked at once, not all that is open with each."""

    def seconds(lines: int) -> float:
        found, began = Records(Path("a.csv"), quoted=True), time.process_time()
        found.feed(b'x\n1,"5 pipe\n')
        for _ in range(lines):
            found.feed(b"1,2\n")
        return time.process_time() - began

    small = max(seconds(20_000), 1e-3)
    assert seconds(80_000) < 12 * small


def test_a_record_without_an_end_is_refused_by_its_first_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1000)
    found = Records(Path("a.csv"), quoted=True)
    found.feed(b'x\n"open\n')
    with pytest.raises(ResultsError, match=r"a\.csv:2: the record that begins at line 2 is longer than 1,000 bytes"):
        for _ in range(300):
            found.feed(b"1,2\n")
