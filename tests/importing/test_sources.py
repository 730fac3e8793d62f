"""Every kind of source: what is in it is what is stored, value by value; what has no exact form is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.cloud import bigquery

from ems.databases.bigquery.database import FIRST_PAUSE_S
from ems.databases.bigquery.service import Address, Service
from tests.cli.running import run
from tests.importing.bringing import CSV, STORED, bring, experiments, refused, rows, write


def kept(found: dict[str, list]) -> dict[str, list[str]]:
    """Exact, with types; without the keys."""
    return {name: list(map(repr, values)) for name, values in found.items() if name not in {"point", "row"}}


# Text


@pytest.mark.parametrize(("word", "sign"), [("tab", "\t"), (";", ";"), ("|", "|"), ("space", " ")])
def test_other_signs_between_cells(lab, word, sign):
    text = "\r\n".join([sign.join("mkt"), sign.join(["1", "2", '"a,;\t| b"']), sign.join(["3", "4", '"x""y\r\nz"'])])
    write("runs.txt", "\ufeff" + text + "\n" + sign.join(["5", "6", "plain"]))
    run("import", "runs.txt", "--as", "phase", "--delimiter", word)
    found = rows(lab, "phase")
    assert (found["m"], found["k"], found["t"]) == ([1, 3, 5], [2, 4, 6], ["a,;\t| b", 'x"y\r\nz', "plain"])


def test_a_tsv_needs_no_delimiter_and_names_lines(lab):
    write("runs.tsv", CSV.replace("a, b", "a  b").replace(",", "\t").replace("a  b", "a, b"))
    run("import", "runs.tsv", "--as", "phase")
    assert rows(lab, "phase") == STORED
    write("bad.tsv", "a\tb\n1\t2\n\n1\t2\t3\n")
    assert "bad.tsv:4: 3 fields, where the header has 2" in refused("bad.tsv", "--as", "x")
    write("open.tsv", 'a\tb\n1\t"2\n3\t4\n')
    assert "open.tsv:2" in refused("open.tsv", "--as", "x")


def test_a_folder_is_one_table(lab):
    write("runs/b.csv", "m,extra\n3,0.5\n")
    write("runs/a.csv", "m,k\n1,2\n2,3\n")
    write("runs/.hidden.csv", "x\n1\n")
    write("runs/notes.md", "")
    told = bring("runs", "--as", "phase")
    lines = "".join(f"{hashlib.sha256(Path('runs', n).read_bytes()).hexdigest()}  {n}\n" for n in ("a.csv", "b.csv"))
    assert told["imported"]["sha256"] == hashlib.sha256(lines.encode()).hexdigest() and told["unread"] == ["notes.md"]
    found = rows(lab, "phase")
    assert (found["m"], found["k"], found["extra"]) == ([1, 2, 3], [2, 3, None], [None, None, 0.5])


def test_whole_numbers_become_doubles_over_the_whole_source(lab):
    write("runs.csv", "x,giant,empty\n" + "1,9007199254740993,\n" * 30_000 + "0.5,5,\n")
    told = bring("runs.csv", "--as", "phase")
    assert told["imported"]["columns"] == {"x": "float64", "giant": "int64"} and told["imported"]["left_out"] == [
        "empty"
    ]
    found = rows(lab, "phase")
    assert found["x"][:2] == [1.0, 1.0] and type(found["x"][0]) is float and found["x"][-1] == 0.5
    assert found["giant"][-2:] == [2**53 + 1, 5] and found["row"] == list(range(30_001))
    write("bad.csv", "x\n" + "9007199254740993\n" * 30_000 + "0.5\n")
    assert "bad.csv:30002" in refused("bad.csv", "--as", "bad")
    assert "Without any value, so left out: empty" in run("import", "runs.csv", "--as", "phase").stdout


def test_json_lines(lab):
    write("runs.jsonl", '{"m": 1, "x": NaN, "t": "a"}\n{"m": 2, "x": Infinity, "ok": true}\n')
    run("import", "runs.jsonl", "--as", "phase")
    found = rows(lab, "phase")
    assert (found["m"], found["x"][1], found["t"], found["ok"]) == ([1, 2], math.inf, ["a", None], [None, True])
    write("bad.jsonl", '{"m": 1}\n{"m": [1]}\n')
    assert "bad.jsonl:2: 'm' is a nested value" in refused("bad.jsonl", "--as", "bad")


# Parquet


def test_parquet(lab):
    noon = dt.datetime(2026, 1, 31, 12)
    table = pa.table(
        {
            "i": pa.array([1, None, 2**63 - 1], pa.int64()),
            "f": pa.array([0.1, math.inf, None], pa.float64()),
            "small": pa.array([0.1, None, 2.5], pa.float32()),
            "t": ["a", "", None],
            "b": [True, None, False],
            "when": pa.array([noon, None, noon], pa.timestamp("us", "UTC")),
            "d": pa.array([Decimal("0.5"), None, Decimal("2.25")], pa.decimal128(10, 2)),
            "nothing": pa.array([None, None, None], pa.float64()),
        }
    )
    pq.write_table(table, "runs.parquet")
    told = bring("runs.parquet", "--as", "phase")
    assert told["imported"]["columns"]["nothing"] == "float64" and told["imported"]["left_out"] == []
    found = rows(lab, "phase")
    assert (found["i"], found["f"], found["t"]) == ([1, None, 2**63 - 1], [0.1, math.inf, None], ["a", "", None])
    assert found["small"] == [0.10000000149011612, None, 2.5] and found["b"] == [True, None, False]
    assert found["when"][0] == "2026-01-31 12:00:00.000000+00:00" and found["d"] == [0.5, None, 2.25]
    assert found["nothing"] == [None] * 3


def test_what_parquet_has_and_no_column_can_hold_is_named_with_its_row(lab):
    exact = pa.array([Decimal("1")] * 30_000 + [Decimal("0.12345678901234567890123")], pa.decimal128(38, 23))
    pq.write_table(pa.table({"d": exact}), "d.parquet")
    said = refused("d.parquet", "--as", "d")
    assert "row 30,001" in said and "'d' is 0.12345678901234567890123" in said and "--type 'd=text'" in said
    run("import", "d.parquet", "--as", "d", "--type", "d=text")
    assert rows(lab, "d")["d"][-1] == "0.12345678901234567890123"
    pq.write_table(pa.table({"l": [[1, 2], [3]]}), "l.parquet")
    assert "row 1: column 'l' is of type list<" in refused("l.parquet", "--as", "l")
    write("cut.parquet", Path("d.parquet").read_bytes()[:-100])
    assert "cut.parquet cannot be read as Parquet" in refused("cut.parquet", "--as", "cut")


# SQLite


def make_sqlite(path: str = "old.db") -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (m INTEGER, rate NUMERIC, t TEXT, ok BOOLEAN, none REAL, untyped)")
        values = [(1, 1, "a", 1, None, None), (2, 0.5, "", 0, None, None), (None, None, None, None, None, None)]
        connection.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", values)
        connection.execute('CREATE TABLE "odd ""name" (x)')
        connection.execute('INSERT INTO "odd ""name" VALUES (\'only\')')
        connection.execute("CREATE VIEW seen AS SELECT m AS n, t FROM runs WHERE m IS NOT NULL")
        connection.execute("CREATE TABLE keyed (a TEXT, b INTEGER, PRIMARY KEY (b, a)) WITHOUT ROWID")
        connection.executemany("INSERT INTO keyed VALUES (?, ?)", [("z", 1), ("a", 2), ("b", 1)])


def test_sqlite(lab):
    make_sqlite()
    told = bring("old.db", "--table", "runs", "--as", "phase")
    imported = told["imported"]
    assert (imported["kind"], imported["table"], imported["content"]) == ("sqlite", "runs", "rows")
    assert imported["left_out"] == ["untyped"] and imported["columns"]["none"] == "float64"
    found = rows(lab, "phase")
    assert kept(found) == {
        "m": ["1", "2", "None"],
        "rate": ["1.0", "0.5", "None"],
        "t": ["'a'", "''", "None"],
        "ok": ["True", "False", "None"],
        "none": ["None"] * 3,
    }
    run("import", "old.db", "--table", "keyed", "--as", "keyed")
    assert rows(lab, "keyed")["a"] == ["b", "z", "a"]
    run("import", f"sqlite:///{Path('old.db').absolute()}", "--table", "seen", "--as", "seen")
    assert rows(lab, "seen")["n"] == [1, 2]
    run("import", "old.db", "--table", 'odd "name', "--as", "odd")
    assert rows(lab, "odd")["x"] == ["only"]


def test_another_table_of_the_file_may_change(lab):
    make_sqlite()
    run("import", "old.db", "--table", "runs", "--as", "phase")
    with closing(sqlite3.connect("old.db")) as connection, connection:
        connection.execute("DELETE FROM keyed")
    assert bring("old.db", "--table", "runs", "--as", "phase")["done"] == "already imported"
    with closing(sqlite3.connect("old.db")) as connection, connection:
        connection.execute("UPDATE runs SET m = 3 WHERE m = 2")
    assert "from other content" in refused("old.db", "--table", "runs", "--as", "phase")


@pytest.mark.parametrize(
    ("declared", "value", "problem"),
    [
        ("BLOB", b"\x00\xff", "row 2: column 'x' has 2 bytes, which are neither text in UTF-8 nor a number"),
        ("", "text", "row 2: column 'x' is of type integer, and \"text\" is not"),
        ("BOOLEAN", 2, "row 2: column 'x' is of type boolean, and 2 is not"),
        ("", 0.5, ""),
    ],
)
def test_values_that_do_not_fit_their_column_in_sqlite(lab, declared, value, problem):
    with closing(sqlite3.connect("old.db")) as connection, connection:
        connection.execute(f"CREATE TABLE t (x {declared})")
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (value,)])
    if problem:
        assert problem in refused("old.db", "--as", "phase")
        assert experiments(lab) == []
    else:
        run("import", "old.db", "--as", "phase")
        assert rows(lab, "phase")["x"] == [1.0, 0.5]


def test_text_of_sqlite_that_is_not_utf_8(lab):
    with closing(sqlite3.connect("old.db")) as connection, connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.execute("INSERT INTO t VALUES (CAST(x'ff' AS TEXT))")
    assert "row 1: column 'x' has 1 bytes" in refused("old.db", "--as", "phase")


def test_types_that_are_said_for_a_table(lab):
    with closing(sqlite3.connect("old.db")) as connection, connection:
        connection.execute("CREATE TABLE t (zip, flag, whole, text)")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", [(501, 1, 2.0, 0.1), ("x", 0, 3.0, None)])
    words = ["--type", "zip=text", "--type", "flag=boolean", "--type", "whole=integer", "--type", "text=text"]
    run("import", "old.db", "--as", "phase", *words)
    assert kept(rows(lab, "phase")) == {
        "zip": ["'501'", "'x'"],
        "flag": ["True", "False"],
        "whole": ["2", "3"],
        "text": ["'0.1'", "None"],
    }


def test_which_table_is_asked(lab):
    make_sqlite()
    assert "old.db has 4 tables: keyed, odd" in refused("old.db", "--as", "x")
    assert "has no table 'rnus': did you mean runs?" in refused("old.db", "--table", "rnus", "--as", "x")
    assert "--delimiter is given, which means nothing" in refused("old.db", "--delimiter", ";", "--as", "x")
    write("broken.db", b"SQLite format 3\0" + b"x" * 2000)
    assert "broken.db cannot be read" in refused("broken.db", "--as", "x")


def test_a_table_of_the_labs_own_file(lab):
    run("import", str(write("runs.csv", CSV)), "--as", "phase")
    with closing(sqlite3.connect(".ems/ems.db")) as connection, connection:
        connection.execute("CREATE TABLE mine AS SELECT m, k FROM phase")
    run("import", ".ems/ems.db", "--table", "mine", "--as", "copy")
    assert rows(lab, "copy")["k"] == [1, 2, 1]


# PostgreSQL


@pytest.fixture
def archive(postgresql_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        yield connection


def test_postgresql(lab, archive, postgresql_url):
    archive.execute(
        """CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN share AS float8; CREATE SCHEMA "Old";
        CREATE TABLE "Old"."Runs" (b int2, a int8, f float8, small float4, s share, n numeric, t text, v varchar(5),
        c char(3), ok bool, mood mood, u uuid, day date, at time, moment timestamp, zoned timestamptz, nothing int4,
        PRIMARY KEY (a, b))"""
    )
    archive.execute(
        """SET TimeZone = 'Europe/Berlin'; INSERT INTO "Old"."Runs" VALUES
        (2, 5, 'NaN', 0.1, 0.25, 12.50, 'ü,"', 'x', 'ab', true, 'glad', '12345678-1234-1234-1234-123456789abc',
         '2026-01-31', '12:00:00.5', '2026-01-31 12:00', '2026-01-31 12:00+01', NULL),
        (1, 5, '-0', 2.5, NULL, 7, '', NULL, NULL, false, 'sad', NULL, 'infinity', NULL, 'infinity',
         '0044-03-15 BC', NULL),
        (1, 4, 'infinity', NULL, NULL, 'NaN', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"""
    )
    told = bring(postgresql_url, "--table", "Old.Runs", "--as", "phase", "--parameters", "a,b")
    imported = told["imported"]
    assert (imported["kind"], imported["table"], imported["content"]) == ("postgresql", "Old.Runs", "rows")
    assert imported["source"] == postgresql_url and list(imported["columns"])[:2] == ["a", "b"]
    assert imported["columns"]["nothing"] == "int64" and imported["left_out"] == []
    found = kept(rows(lab, "phase"))
    assert (found["a"], found["b"]) == (["4", "5", "5"], ["1", "1", "2"])
    assert found["f"] == ["inf", "-0.0", "None"]  # SQLite has no NaN
    assert found["small"] == ["None", "2.5", "0.10000000149011612"] and found["n"] == ["None", "7.0", "12.5"]
    assert (
        found["t"] == ["None", "''", repr('ü,"')] and found["c"][2] == "'ab '" and found["ok"][1:] == ["False", "True"]
    )
    assert found["mood"][1:] == ["'sad'", "'glad'"] and found["u"][2] == "'12345678-1234-1234-1234-123456789abc'"
    assert found["day"][1:] == ["'infinity'", "'2026-01-31'"] and found["at"][2] == "'12:00:00.500000'"
    assert found["moment"][1:] == ["'infinity'", "'2026-01-31 12:00:00.000000'"]
    assert found["zoned"][2] == "'2026-01-31 11:00:00.000000+00:00'" and found["zoned"][1].endswith(" BC'")
    assert bring(postgresql_url, "--table", "Old.Runs", "--as", "phase")["done"] == "already imported"
    archive.execute('DELETE FROM "Old"."Runs" WHERE a = 4')
    assert "from other content" in refused(postgresql_url, "--table", "Old.Runs", "--as", "phase")


def test_what_postgresql_has_and_no_column_can_hold(lab, archive, postgresql_url):
    archive.execute("CREATE TABLE j (a int, doc jsonb); INSERT INTO j VALUES (1, '{\"x\": [1]}')")
    said = refused(postgresql_url, "--table", "j", "--as", "j")
    assert "column 'doc' is of type jsonb, which has no exact form" in said and "--type 'doc=text'" in said
    run("import", postgresql_url, "--table", "j", "--as", "j", "--type", "doc=text")
    assert rows(lab, "j")["doc"] == ['{"x": [1]}']
    archive.execute("CREATE TABLE n (x numeric); INSERT INTO n VALUES (1), (0.1234567890123456789)")
    said = refused(postgresql_url, "--table", "n", "--as", "n")
    assert "row 2: column 'x' has" in said and "has more digits than a double keeps" in said
    run("import", postgresql_url, "--table", "n", "--as", "n", "--type", "x=text")
    assert rows(lab, "n")["x"] == ["1", "0.1234567890123456789"]
    assert "allowed are j, n" in refused(postgresql_url, "--table", "public.nn", "--as", "n")


def test_a_server_that_is_not_there_and_secrets_in_urls(lab):
    said = refused("postgresql://nobody@127.0.0.1:1/none", "--as", "x", expect=4)
    assert "The source postgresql://nobody@127.0.0.1:1/none" in said and "lab's database" not in said
    said = refused("postgresql://me:secret@127.0.0.1/none", "--as", "x")
    assert "secret@" not in said and "The source has a password in it" in said


# BigQuery


@pytest.fixture
def dataset(bigquery_url: str) -> Iterator[Service]:
    service = Service(Address.of(bigquery_url), 60.0, FIRST_PAUSE_S)
    service.make_dataset()
    yield service
    service.close()


def test_bigquery(lab, dataset, bigquery_url):
    kinds = ["i INT64", "f FLOAT64", "t STRING", "b BOOL", "d DATE", "w TIMESTAMP", "n NUMERIC"]
    dataset.query(f"CREATE TABLE runs ({', '.join(kinds)})")
    dataset.query(
        "INSERT INTO runs VALUES (1, 0.5, 'a', TRUE, '2026-01-31', '2026-01-31 12:00:00+01', 2.25), "
        "(9007199254740993, CAST('inf' AS FLOAT64), '', NULL, NULL, NULL, NULL)"
    )
    told = bring(bigquery_url, "--table", "runs", "--as", "phase")
    assert told["imported"]["kind"] == "bigquery" and told["imported"]["rows"] == 2
    found = kept(rows(lab, "phase"))
    assert sorted(found["i"]) == ["1", "9007199254740993"] and set(found["f"]) == {"0.5", "inf"}
    assert set(found["w"]) == {"'2026-01-31 11:00:00.000000+00:00'", "None"} and set(found["n"]) == {"2.25", "None"}
    assert set(found["d"]) == {"'2026-01-31'", "None"} and set(found["t"]) == {"'a'", "''"}
    assert bring(bigquery_url, "--table", "runs", "--as", "phase")["done"] == "already imported"
    assert "did you mean runs" in refused(bigquery_url, "--table", "rnus", "--as", "x")
    dataset.make_table(bigquery.Table(dataset.table("deep"), [bigquery.SchemaField("l", "INT64", mode="REPEATED")]))
    assert "is of type ARRAY<" in refused(bigquery_url, "--table", "deep", "--as", "x")
