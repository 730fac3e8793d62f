"""Which files of a results folder are read, and when."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ems.node.job.results_file import MOST_COLUMNS, ResultsError
from ems.node.job.results_reader import ResultsReader
from tests.node.test_results_reader import append, batches, table


def test_pipes_sockets_and_devices_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a pipe that nobody writes to would wait for ever."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("a.csv")
    os.mkfifo("b.parquet")
    Path("c.jsonl").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("d.csv")
    append(tmp_path / "e.csv", "x\n1\n")
    reader = ResultsReader(tmp_path)
    assert table(reader.poll(ended=True)) == {"x": ("int64", [1])}
    assert reader.read() == {tmp_path / "e.csv"}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_a_file_that_becomes_something_else_is_refused(tmp_path: Path, name: str) -> None:
    reader, path = ResultsReader(tmp_path), tmp_path / name
    path.touch()
    assert reader.poll() is None
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ResultsError, match="is not a regular file"):
        reader.poll()


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, path = ResultsReader(tmp_path), tmp_path / "a.csv"
    append(path, "x\n")

    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ResultsError, match=r"a\.csv cannot be read: Permission denied"):
        reader.poll()


def written(folder: Path, *values: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"x": list(values)}), folder)


def test_folders_of_files_are_read_once_the_job_has_ended(tmp_path: Path) -> None:
    """As Dask and Spark write them."""
    written(tmp_path / "a.parquet/part.0.parquet", 1)
    written(tmp_path / "a.parquet/more/part.1.parquet", 2)
    for name in ("_SUCCESS", "_metadata", ".part.0.parquet.crc"):
        append(tmp_path / "a.parquet" / name, "x")
    (tmp_path / "b.csv").mkdir()
    append(tmp_path / "b.csv/part-0.csv", "x\n3\n")
    append(tmp_path / "b.csv/part-1.csv", "x\n4\n")
    reader = ResultsReader(tmp_path)
    assert reader.poll() is None
    assert [value for batch in batches(reader) for value in batch.columns[0].values] == [2, 1, 3, 4]
    assert sorted(path.name for path in reader.read()) == [
        "part-0.csv",
        "part-1.csv",
        "part.0.parquet",
        "part.1.parquet",
    ]


def test_what_else_is_there_is_not_read(tmp_path: Path) -> None:
    for name in ("run1", "empty.csv", "mixed.csv"):
        (tmp_path / name).mkdir()
    for name in (
        "run1/r.csv",
        "mixed.csv/a.csv",
        "mixed.csv/b.csv.gz",
        "r.csv.gz",
        "r.tsv",
        "a.csv.tmp",
        ".b",
        "c.csv",
    ):
        append(tmp_path / name, "x\n1\n")
    reader = ResultsReader(tmp_path)
    assert sum(map(len, batches(reader))) == 2
    assert reader.read() == {tmp_path / "c.csv", tmp_path / "mixed.csv/a.csv"}


def test_a_folder_divided_by_values_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet/year=2020/part.0.parquet", 1)
    with pytest.raises(
        ResultsError, match=r"a\.parquet is divided by the values of a column: year=2020(.|\n)*partitionBy"
    ):
        ResultsReader(tmp_path).poll(ended=True)


def test_data_as_names_of_columns_is_refused_by_its_line(tmp_path: Path) -> None:
    append(tmp_path / "a.csv", ",".join(f"c{n}" for n in range(40_000)) + "\n1\n")
    with pytest.raises(ResultsError, match=r"a\.csv:1: more than 10,000 columns"):
        ResultsReader(tmp_path).poll()
    (tmp_path / "a.csv").unlink()
    append(tmp_path / "a.jsonl", "".join(f'{{"k{n}": 1}}\n' for n in range(MOST_COLUMNS + 1)))
    reader = ResultsReader(tmp_path)
    with pytest.raises(ResultsError, match=r"a\.jsonl:10001: more than 10,000 columns"):
        list(batches(reader))
    assert reader.rows == MOST_COLUMNS


def test_a_poll_is_bounded_in_cells_and_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "a.jsonl", "".join(f'{{"k{n}": 1}}\n' for n in range(4000)))
    reader = ResultsReader(tmp_path)
    widths = [len(batch) * len(batch.columns) for batch in batches(reader, ended=False)]
    assert max(widths) < 4_100_000 and reader.rows == 4000
    append(tmp_path / "b.csv", "x\n" + "\n" * 2_500_000 + "1\n")
    monkeypatch.setattr("ems.node.job.results_reader.POLL_S", 0.0)
    began = time.monotonic()
    first = reader.poll()
    assert first is not None and len(first) == 0 and time.monotonic() - began < 10
    assert sum(map(len, batches(reader))) == 1


def test_a_poll_is_bounded_within_one_record_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a stray quote all is one record, which a job may write as fast as it is read."""
    monkeypatch.setattr("ems.node.job.results_reader.POLL_S", 0.0)
    append(tmp_path / "a.csv", 'x\n"' + "y\n" * 2_000_000)
    reader = ResultsReader(tmp_path)
    assert [len(batch) for batch in batches(reader, ended=False)] == [0] * 3  # of 1 MiB, and what is left
    append(tmp_path / "a.csv", '"')
    (batch,) = (batch for batch in batches(reader) if len(batch))
    assert batch.columns[0].values == ["y\n" * 2_000_000]


def test_what_was_read_is_verified_at_the_end(tmp_path: Path) -> None:
    """Rows of one width, so that neither the size nor the last bytes tell."""
    path = tmp_path / "a.csv"
    append(path, "n,state\n" + "0,running\n" * 100)
    reader = ResultsReader(tmp_path)
    assert sum(map(len, batches(reader))) == 100
    assert list(reader.verified()) == [None]
    with path.open("r+") as file:
        file.seek(8)
        file.write("0,success\n")
    with pytest.raises(ResultsError, match="shortened or rewritten after 101 lines"):
        list(reader.verified())
