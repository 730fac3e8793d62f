"""What the views draw, from rows made by hand."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import ems
from ems.base.errors import UserError
from ems.databases import Experiment, State
from ems.lab.line import ago, duration, progress_line
from ems.node.job.results_reader import ResultsReader
from ems.spool.batch import Batch, Column, Mark
from ems.views import check, doctor, failures, results, status, teardown
from tests.conftest import ran
from tests.databases.cases import REGISTRATION, batch, floats, ints, texts

ODD = ["", "NA", "01234", "1", "1e5", "TRUE", "nan", "\r", "a\rb", "\r\n", "\n", ' "', ",", "a\n\nb", "\x01A", "\\"]
TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise E\n'
THEN = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
FINISHED = Experiment(
    registration=REGISTRATION,
    state=State.SUCCEEDED,
    attempt=1,
    wanted_attempt=1,
    points_done=8,
    points_failed=0,
    rows_stored=1234,
    machines=0,
    cost_usd=1234.5,
    cancel_requested=False,
    registered_at=THEN,
    started_at=THEN,
    finished_at=THEN + timedelta(minutes=70),
    took_s=65 * 60,
)


def drawn(what: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()


def mixed() -> list[Batch]:
    first = batch([0, 0, 1], ints("n", 1, None, 3), floats("x", 0.1, math.inf, math.nan), rows=[0, 1, 0])
    flags = Column("flag", "bool", [True, False, None])
    named = texts("name", "é", "a,b", 'say "hi"')
    return [Batch(first.points, first.rows, (*first.columns, flags, named), ())]


# status


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_status_row_is_whole_at_any_width(width: int) -> None:
    long = replace(REGISTRATION, stack="a-very-long-name-of-a-stack-indeed", points_total=100_000_000, project="p" * 40)
    running = {"points_done": 12_345_678, "points_failed": 12, "attempt": 3, "machines": 120}
    busy = replace(FINISHED, registration=long, state=State.PROVISIONING, **running)
    shown = drawn(status.status_table([busy, FINISHED], width), width)
    assert all(len(line) <= width for line in shown.splitlines())
    for part in ("12,345,678/100,000,000", "provisioning", "8/8", "a-very-long", "digits"):
        assert part in shown
    assert "…" not in shown
    assert ("$1,234.50" in shown) is (width == 120)


def test_status_leaves_out_what_says_nothing() -> None:
    one = replace(FINISHED, registration=replace(REGISTRATION, points_total=1), cost_usd=0.0)

    def columns(*experiments: Experiment) -> list[str]:
        return drawn(status.status_table(experiments, 120), 120).splitlines()[1].split()

    assert columns(one) == ["stack", "state", "rows", "changed", "took", "cluster", "project"]
    sweep = replace(one, registration=replace(REGISTRATION, points_total=9), points_failed=1)
    assert columns(replace(one, points_failed=1), replace(sweep, attempt=2, machines=1, cost_usd=0.1)) == [
        *[
            "stack",
            "state",
            "points",
            "failed",
            "rows",
            "attempt",
            "changed",
            "took",
            "cluster",
            "machines",
            "cost",
            "project",
        ]
    ]


def test_errors_stand_below_the_table_as_they_are() -> None:
    failed = replace(FINISHED, state=State.FAILED, error="[bold]KeyError[/]: 'x'")
    assert drawn(status.status_page([failed], 80)).splitlines()[-2:] == [
        "digits: [bold]KeyError[/]: 'x'",
        "See `ems logs digits`; go on with `ems up digits --retry`.",
    ]
    some = replace(FINISHED, state=State.EXPIRED, points_failed=1)
    assert drawn(status.status_page([some], 80)).splitlines()[-1] == "See `ems failures digits`."
    assert drawn(status.status_page([some], 80, waits="It waits.")).splitlines()[-1] == "It waits."


def test_several_are_summed_up_with_the_first_line_of_each_error() -> None:
    failed = replace(FINISHED, state=State.FAILED, error="no memory\nat line 3")
    lines = drawn(status.status_page([failed, FINISHED, FINISHED], 80, total=9, declaring=["digits"])).splitlines()
    assert lines[-3:] == [
        "digits: no memory",
        "3 experiments: 1 failed · 2 succeeded · 6 older not shown: --limit 9",
        "Clusters that ended runs still declare: digits. Release: ems teardown digits",
    ]


@given(st.text("ab-_.", min_size=1), st.integers(1, 12))
def test_a_name_is_folded_where_a_word_of_it_ends(name: str, width: int) -> None:
    lines = list(status.folded(name, width))
    assert "".join(lines) == name and all(lines)
    assert all(len(line) <= width or not re.search("[-_.]", line[:-1]) for line in lines)
    assert all(line[-1] in "-_." for line in lines[:-1])


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (-1, "now"),
        (4.9, "now"),
        (5, "5 s ago"),
        (119, "1 min ago"),
        (7199, "1 h ago"),
        (86_400, "1 day ago"),
        (86_399, "23 h ago"),
        (2 * 86_400, "2 days ago"),
        (60 * 86_400, "60 days ago"),
        (61 * 86_400, "2 months ago"),
        (1e8, "3 years ago"),
    ],
)
def test_how_long_ago(seconds: float, shown: str) -> None:
    assert ago(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    "seconds, shown",
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7620, "2 h 07 min"),
        (273_600, "3 d 04 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(timedelta(seconds=seconds)) == shown


def test_the_progress_line() -> None:
    running = replace(FINISHED, state=State.RUNNING, points_done=3, points_failed=1, attempt=2)
    assert progress_line(running).startswith("running · 3 of 8 points · 1 failed · 1,234 rows · attempt 2 · ")
    assert progress_line(replace(FINISHED, state=State.REGISTERED, started_at=None)) == "registered · 8 of 8 points"


# results


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


# teardown


def leftover(clusters: int = 0, result: str = "", **changes) -> teardown.Leftover:
    return teardown.Leftover("digits", replace(FINISHED, **changes), clusters, result)


def test_the_certificate_says_what_is_left_when_and_at_what_cost() -> None:
    clean = drawn(teardown.certificate([leftover(result="released"), leftover(result="nothing left")]), 200)
    assert "released" in clean
    assert " UTC: nothing is left; spent $2,469.00 by 2 experiments, the newest of each stack." in clean
    held = drawn(teardown.certificate([leftover(1, machines=3)]), 200)
    assert " UTC: 1 cluster and 3 machines left; spent $1,234.50 by 1 experiment." in held
    assert "nothing is left; spent $0.00 by 0 experiments" in drawn(teardown.certificate([]), 200)


def test_what_teardown_would_do() -> None:
    command = "ems teardown --all"
    shown = drawn(
        teardown.plan([leftover(1, "to be released"), leftover(1, "kept: running", machines=2)], command), 200
    )
    assert "UTC: 2 clusters and 2 machines held; nothing was changed. Do it: ems teardown --all" in shown
    kept = drawn(teardown.plan([leftover(1, "kept: running", machines=1)], command), 200)
    assert "UTC: 1 cluster and 1 machine held; nothing would be released." in kept
    assert "UTC: nothing held; nothing would be released." in drawn(teardown.plan([], command), 200)


def test_the_shape_of_teardown() -> None:
    shown = teardown.as_object([leftover(1, "kept: running", machines=2)])
    assert list(shown) == ["at", "clusters_left", "machines_left", "cost_usd", "stacks"]
    assert (shown["clusters_left"], shown["machines_left"], shown["cost_usd"]) == (1, 2, 1234.5)
    (stack,) = shown["stacks"]
    assert stack == {
        "stack": "digits",
        "experiment_id": "5f0c",
        "state": "succeeded",
        "clusters_left": 1,
        "result": "kept: running",
    }


def test_only_what_failed_to_go_is_an_error() -> None:
    assert teardown.exit_code([leftover(result="released"), leftover(1, "kept: running (--force stops it)")]) == 0
    assert teardown.exit_code([leftover(result="released"), leftover(1, "failed: no network")]) == 5


# check and doctor


def test_the_page_of_check() -> None:
    reports = [check.Report("a", "lab"), check.Report("b", "", ("x: [1]",), ("y",), 2)]
    assert drawn(check.page(reports)) == "✓ a lab\n✗ b\n  x: [1]\n  warning: y\n"


def test_the_page_of_doctor() -> None:
    findings = [doctor.Finding("git", True, "2.39"), doctor.Finding("disk", False, "1 GB free", "Free\nsome")]
    assert drawn(doctor.page(findings)) == "✓ git       2.39\n✗ disk      1 GB free\n  Free\n  some\n"


SVD = replace(FINISHED, registration=replace(REGISTRATION, stack="svd"))


def test_each_error_is_shown_once_with_how_many_points_and_a_few_of_them() -> None:
    marks = [Mark(n, "failed", {"n": n, "x": 0.5}, f"{TRACEBACK}ValueError: no {n}\n  seen") for n in range(1200)]
    shown = drawn(failures.page([Mark(7_000, "failed", {}, "killed"), *marks, Mark(9_000, "failed", {}, "")], SVD))
    head, _, first, *rest = shown.splitlines()
    assert head == "svd: 1,202 points failed with 3 different errors"
    assert first == "such as ValueError: no 0  × 1,200 points" and rest[0] == "  point 0  n=0, x=0.5"
    assert shown.count("ValueError") == 1 and "  … and 1,197 more" in rest and "Traceback" not in shown
    assert "killed  × 1 point" in rest and "no error was recorded  × 1 point" in rest
    assert "ems up svd --retry" in rest[-1]
    assert drawn(failures.page([], SVD)) == "svd: no point failed\n"
    broken = replace(SVD, state=State.FAILED, error="no such table")
    assert drawn(failures.page([], broken)).startswith("svd: no point failed; the run is failed: no such table\nSee ")


def test_where_an_object_lies_makes_no_error_of_its_own() -> None:
    marks = [Mark(n, "failed", {}, f"TypeError: <object at 0x7f{n:x}ab0c>") for n in range(20)]
    assert "1 point" not in drawn(failures.page(marks, SVD)) and "× 20 points" in drawn(failures.page(marks, SVD))


def test_the_json_of_a_failure_has_the_whole_error() -> None:
    assert failures.as_object(Mark(1, "failed", {"x": float("inf")}, "e")) == {
        "point": 1,
        "parameters": {"x": {"float64": "inf"}},
        "error": "e",
    }


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
