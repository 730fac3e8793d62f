"""Results as a table, as frames, and as files of each format."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ems
from ems.base.errors import UserError
from ems.databases import State
from ems.node.job.results_reader import ResultsReader
from ems.spool.batch import Batch, Column
from ems.views import results
from tests.conftest import ran
from tests.databases.cases import REGISTRATION, batch, floats, ints, texts
from tests.views.drawing import FINISHED, drawn

ODD = ["", "NA", "01234", "1", "1e5", "TRUE", "nan", "\r", "a\rb", "\r\n", "\n", ' "', ",", "a\n\nb", "\x01A", "\\"]


def mixed() -> list[Batch]:
    first = batch([0, 0, 1], ints("n", 1, None, 3), floats("x", 0.1, math.inf, math.nan), rows=[0, 1, 0])
    flags = Column("flag", "bool", [True, False, None])
    named = texts("name", "é", "a,b", 'say "hi"')
    return [Batch(first.points, first.rows, (*first.columns, flags, named), ())]


def write(format: str, batches: list[Batch]) -> str:
    file = io.StringIO()
    assert results.write(batches, format, file) == sum(map(len, batches))
    return file.getvalue()


def test_csv_is_exact() -> None:
    lines = write("csv", mixed()).splitlines()
    assert lines[0] == "point,row,n,x,flag,name"
    assert lines[1:] == ['0,0,1,0.1,True,"é"', '0,1,,inf,False,"a,b"', '1,0,3,nan,,"say ""hi"""']


def test_json_is_json() -> None:
    rows = json.loads(write("json", mixed()), parse_constant=pytest.fail)
    assert [row["x"] for row in rows] == [0.1, "inf", None]
    assert rows[0] == {"point": 0, "row": 0, "n": 1, "x": 0.1, "flag": True, "name": "é"}
    assert json.loads(write("json", [])) == []


ANY = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=6), st.sampled_from(ODD))


@given(st.lists(st.tuples(ANY, st.none() | st.integers(-(2**63), 2**63 - 1), st.none() | st.floats()), min_size=1))
def test_any_value_comes_back_from_each_format(tmp_path_factory, rows: list[tuple]) -> None:
    """Text that looks like a number, and carriage returns, too."""
    names = ("my, \r label", "n", "2019")
    values = [list(column) for column in zip(*rows, strict=True)]
    columns = [Column(*about) for about in zip(names, ("text", "int64", "float64"), values, strict=True)]
    batches = [batch([0] * len(rows), *columns, rows=list(range(len(rows))))]
    folder = tmp_path_factory.mktemp("formats")
    for format in results.FORMATS:
        results.export(batches, format, folder / f"a.{format}")
    with (folder / "a.csv").open(newline="", encoding="utf-8") as file:
        head, *cells = csv.reader(file, strict=True)
    assert head[2:] == list(names)
    assert [row[2] for row in cells] == [text or "" for text in values[0]]
    in_json = json.loads((folder / "a.json").read_bytes())
    assert [row[names[0]] for row in in_json] == values[0] and [row["n"] for row in in_json] == values[1]
    table = pq.read_table(folder / "a.parquet")
    assert [table[name].to_pylist() for name in names[:2]] == values[:2]
    assert repr(table["2019"].to_pylist()) == repr(values[2])
    (folder / "a.json").unlink()
    (folder / "a.parquet").unlink()
    read = ResultsReader(folder).poll(ended=True)
    found = {column.name: (column.type, list(column.values)) for column in read.columns} if read else {}
    for column in columns:
        nothing = (column.type, [None] * len(rows))
        assert repr(found.get(column.name, nothing)) == repr((column.type, column.values))


def test_parquet_and_frames_keep_the_types() -> None:
    file = io.BytesIO()
    assert results.write([*mixed(), *mixed()], "parquet", file) == 6
    table = pq.read_table(io.BytesIO(file.getvalue()))
    assert [str(type) for type in table.schema.types] == ["int64", "int64", "int64", "double", "bool", "string"]
    assert table["n"].to_pylist() == [1, None, 3] * 2 and table["x"].to_pylist()[:2] == [0.1, math.inf]
    empty = io.BytesIO()
    assert results.write([], "parquet", empty) == 0
    assert pq.read_table(io.BytesIO(empty.getvalue())).num_rows == 0


def test_parquet_is_not_sent_to_a_terminal(monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(UserError, match="terminal") as refused:
        results.export(mixed(), "parquet", None)
    assert "--out" in str(refused.value.hint)


def test_parquet_has_few_groups_of_rows() -> None:
    file = io.BytesIO()
    assert results.write((batch([n], floats("x", n)) for n in range(1000)), "parquet", file) == 1000
    table = pq.ParquetFile(io.BytesIO(file.getvalue()))
    assert table.num_row_groups == 1 and table.read()["x"].to_pylist() == list(range(1000))


def test_results_of_python_are_those_of_the_newest_experiment(here) -> None:
    ran(here, batch([0, 0], floats("x", 1.5, 2.5), rows=[0, 1]))
    assert ems.results("pi")["x"].tolist() == [1.5, 2.5]
    assert ems.results("pi", where=["x > 2", "row = 1"], columns=["x"]).to_dict("list") == {
        "point": [0],
        "row": [1],
        "x": [2.5],
    }
    assert ems.results("pi", where="x > 1e9", columns="x").equals(ems.results("pi", where=["x > 1e9"], columns=["x"]))
    with pytest.raises(UserError, match="is not a condition"):
        ems.results("pi", where=["x"])
    with pytest.raises(UserError, match="describes the lab, and runs nothing"):
        ems.results("lab")
    with pytest.raises(UserError, match="no stack 'other'"):
        ems.results("other")


def test_the_table_shows_the_first_rows_and_columns() -> None:
    columns = [floats(f"c{number}", *[number + 1 / 3] * 30) for number in range(1000)]
    shown = drawn(results.table([batch([0] * 30, *columns, rows=list(range(30)))], FINISHED))
    assert "digits: 20 of 1,234 rows, 8 of 1,002 columns in digits" in shown and "c5" in shown and "c6" not in shown
    assert shown.endswith("All of them: ems results digits --out digits.csv\n")
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert shown.count("5.33333") == results.MOST_ROWS
    assert "no rows, its state is succeeded" in drawn(results.table([], FINISHED))
    assert "no rows yet, its state is running" in drawn(results.table([], replace(FINISHED, state=State.RUNNING)))


def test_a_small_table_is_whole_and_floats_are_told_apart() -> None:
    two = batch(
        [0, 1], floats("x", 0.1234567891, 0.1234567892), floats("y", 1 / 3, math.nan), texts("t", "a" * 900, "b")
    )
    shown = drawn(results.table([two], replace(FINISHED, rows_stored=2)), 200)
    assert shown.startswith("digits: 2 rows, 5 columns in digits\n") and "All of them" not in shown
    assert "0.1234567891" in shown and "0.1234567892" in shown and " 0.333333 " in shown and "nan" in shown
    assert shown.count("a") < 220 and "a…" in shown


def test_the_rows_asked_for_are_counted_up_to_a_limit() -> None:
    asked = results.Asked(["m = 60", "t = 'a b'"], "x,y")
    shown = drawn(
        results.table([batch([0] * 20, floats("x", *[0.5] * 20), rows=list(range(20)))], FINISHED, asked, "21"), 200
    )
    assert shown.startswith("digits: 20 of 21 rows with m = 60 and t = 'a b', 3 chosen columns in digits\n")
    assert """ems results digits --columns x,y --where 'm = 60' --where 't = '"'"'a b'"'"'' --out digits.csv""" in shown
    assert results.count_of([batch([0, 1]), batch([2])]) == "3"
    many = batch(list(range(1000)))
    assert results.count_of(many for _ in range(10**9)) == "more than 100,000"


def test_a_format_by_name_or_by_the_end_of_the_file(tmp_path) -> None:
    assert results.format_of("", None) == ""
    assert results.format_of("", tmp_path / "a.parquet") == "parquet"
    assert results.format_of("csv", tmp_path / "a.txt") == "csv"
    with pytest.raises(UserError, match="csv, json, parquet"):
        results.format_of("xls", None)


def test_an_export_that_fails_in_the_middle_leaves_the_old_file(tmp_path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("old")

    def breaking():
        yield from mixed()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        results.export(breaking(), "csv", target)
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]
    assert results.export(mixed(), "csv", target) == 3
    assert target.read_text().startswith("point,") and list(tmp_path.iterdir()) == [target]


def test_missing_points_are_told() -> None:
    sweep = replace(REGISTRATION, points_total=3120)
    found = replace(FINISHED, registration=sweep)
    assert results.missing(found) == "; of 3,120 points 3,112 not computed"
    assert results.missing(replace(found, state=State.RUNNING)) == "; of 3,120 points 3,112 not computed yet"
    failed = replace(found, state=State.FAILED, points_failed=18)
    assert results.missing(failed) == "; of 3,120 points 18 failed, 3,094 not computed"
    assert results.missing(replace(failed, points_done=3102)) == "; of 3,120 points 18 failed"
    assert results.missing(replace(FINISHED, registration=replace(sweep, points_total=8))) == ""
    assert results.missing(replace(FINISHED, points_done=0, registration=replace(sweep, points_total=1))) == ""
