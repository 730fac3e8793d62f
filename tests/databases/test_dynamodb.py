from __future__ import annotations

import itertools
import json
import math
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.base.errors import DatabaseError, FencedOut
from ems.databases import MAY, Outcome, State, connect
from ems.databases.dynamodb import results as dynamodb_results
from ems.databases.dynamodb.database import DynamodbDatabase
from ems.databases.dynamodb.items import double, item_of, joined, row_items, span_text, spans_of
from ems.databases.dynamodb.log import STORED, Points
from ems.databases.dynamodb.results import of_claim
from ems.databases.dynamodb.service import Service, session
from tests.databases.cases import (
    REGISTRATION,
    Address,
    batch,
    claimed,
    failed,
    fill_lab,
    floats,
    ints,
    now,
    states,
    table,
    texts,
)
from tests.databases.contract import DatabaseContract
from tests.databases.registry_contract import assert_newest

HERE = Path()


class TestDynamodb(DatabaseContract):
    @pytest.fixture
    def address(self, dynamodb_url) -> Address:
        return dynamodb_url, HERE


@pytest.fixture
def database(dynamodb_url):
    with closing(connect(dynamodb_url, HERE)) as made:
        made.create()
        fill_lab(made)
        yield made


def raw(url: str, name: str) -> list[dict]:
    """All items of a table, without EMS."""
    client = session().create_client("dynamodb", "eu-central-1")
    pages = client.get_paginator("scan").paginate(TableName=f"{url.rpartition('/')[2]}-{name}")
    return [item for page in pages for item in page["Items"]]


# Values


@given(st.floats())
def test_doubles_are_numbers_that_dynamodb_keeps_exactly_or_text(value):
    ((tag, written),) = double(value).items()
    assert repr(float(written)) == repr(value)
    size = abs(value)
    assert (tag == "N") == ((1e-130 <= size < 1e126) or repr(value) == "0.0")
    assert tag == "S" or len(Decimal(written).as_tuple().digits) <= 38


@given(st.sets(st.integers(0, 40)))
def test_spans_read_back(points):
    spans = [(point, point + point % 3) for point in sorted(points)]
    assert spans_of(span_text(spans)) == spans


@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 5000), st.integers(0, 3)), max_size=6))
def test_the_state_of_points_is_that_of_the_last_span(spans):
    points, expected = Points(), {}
    for first, length, code in spans:
        points.fill(first, first + length, code)
        expected |= dict.fromkeys(range(first, first + length + 1), code)
    runs = list(points.runs(1, 2, 3))
    assert {point: code for code, found in runs for point in found} == {p: code for p, code in expected.items() if code}
    assert all(one[0] != other[0] or one[1].stop < other[1].start for one, other in itertools.pairwise(runs))


def test_rows_beyond_what_an_item_holds_are_several_items():
    wide = [floats(f"a_rather_long_name_of_a_column_{n:05}", n / 7) for n in range(9000)]
    long = texts("long", "é" * 500_000), texts("short", "x")
    items = list(row_items("e", 1, batch([3], *wide, *long)))
    assert len(items) > 3
    assert all(sum(len(n) + len(str(v).encode()) for n, v in item.items()) < 700_000 for item in items)
    (row,) = joined(items)
    assert row["long"]["S"] == "é" * 500_000
    assert float(row["a_rather_long_name_of_a_column_08999"]["N"]) == 8999 / 7
    assert len({item["rowid"]["S"] for item in items}) == len(items)


def test_what_others_read(database, dynamodb_url):
    columns = floats("x", 0.1, math.inf, -0.0), ints("i", 2**62, None, 1), texts("t", "a", "", None)
    database.store(claimed(database), batch([0, 1, 1], *columns, rows=[0, 0, 1], marks=(failed(2, n=1.5),)))
    rows = sorted((item for item in raw(dynamodb_url, "results") if "row" in item), key=lambda item: item["rowid"]["S"])
    assert rows[0] == {
        "experiment_id": {"S": "5f0c/0"},
        "rowid": {"S": "0000000000000000000 0000000000000000000 0000000001"},
        "point": {"N": "0"},
        "row": {"N": "0"},
        "x": {"N": "0.1"},
        "i": {"N": str(2**62)},
        "t": {"S": "a"},
    }
    assert [item["x"] for item in rows[1:]] == [{"S": "inf"}, {"S": "-0.0"}]
    assert [item.get("t") for item in rows[1:]] == [{"S": ""}, None]
    registry = {item["pk"]["S"]: item for item in raw(dynamodb_url, "registry")}
    assert registry["experiments"]["sk"]["S"] == "digits/5f0c"
    assert registry["table"]["columns"]["L"][0]["M"] == {"name": {"S": "x"}, "type": {"S": "float64"}}


# Batches


def test_what_a_killed_store_left_is_never_seen_and_deleted_at_the_next_run(database, dynamodb_url, monkeypatch):
    claim = claimed(database)
    database.store(claim, batch([0, 1], ints("x", 1, 2), marks=(failed(2),)))
    with monkeypatch.context() as patched:
        patched.setattr(database._results, "_commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            database.store(claim, batch([1, 3], ints("x", 8, 9), replaces=(0, 1, 2, 3)))
    before = {"point": [0, 1], "row": [0, 0], "x": [1, 2]}
    assert (table(database), states(database)) == (before, {"stored": [0, 1], "failed": [2]})
    database.store(claim, batch([4], ints("x", 5)))
    assert table(database)["x"] == [1, 2, 5]
    assert sum("row" in item for item in raw(dynamodb_url, "results")) == 5
    claimed(database)
    assert sum("row" in item for item in raw(dynamodb_url, "results")) == 3
    assert (table(database)["x"], now(database).rows_stored) == ([1, 2, 5], 3)


def test_replaced_rows_and_marks_are_deleted_at_the_end_of_the_run(database, dynamodb_url):
    claim = claimed(database)
    database.store(claim, batch([0, 0, 1], ints("x", 1, 2, 3), rows=[0, 1, 0], marks=(failed(2), failed(3))))
    database.store(claim, batch([0], ints("x", 4), replaces=(0, 2)))
    database.store(claim, batch([1], ints("x", 5)))
    expected = {"point": [0, 1], "row": [0, 0], "x": [4, 5]}
    assert (table(database), states(database)) == (expected, {"stored": [0, 1], "failed": [3]})
    database.release(claim, Outcome(State.LOST, 2, 1))
    items = [item for item in raw(dynamodb_url, "results") if "point" in item]
    assert sorted(int(item["point"]["N"]) for item in items) == [0, 1, 3]
    assert (table(database), list(database.failures("5f0c"))) == (expected, [failed(3)])
    assert "unclean_batches" not in next(
        item for item in raw(dynamodb_url, "registry") if item["sk"]["S"] == "experiment"
    )


def test_cleaning_that_has_no_time_goes_on_later(database, monkeypatch):
    claim = claimed(database)
    database.store(claim, batch([0, 1], ints("x", 1, 2)))
    database.store(claim, batch([0], ints("x", 3), replaces=(0,)))
    monkeypatch.setattr(dynamodb_results, "CLEANING_S", -1)
    database.release(claim, Outcome(State.LOST, 2, 0))
    assert table(database)["x"] == [3, 2]
    monkeypatch.setattr(dynamodb_results, "CLEANING_S", 60)
    claimed(database)
    assert table(database)["x"] == [3, 2]


def test_a_zombie_that_goes_on_writing_is_refused_and_never_seen(database, connect_other):
    zombie = claimed(database)
    row = database._results._numbered(of_claim(zombie))
    heir = claimed(database)
    database.store(heir, batch([0], ints("x", 1)))
    with pytest.raises(FencedOut):
        database._results._stored(of_claim(zombie), row, batch([0, 1], ints("x", 8, 9)), "", [])
    assert table(connect_other())["x"] == [1]
    assert states(connect_other()) == {"stored": [0]}


@pytest.fixture
def connect_other(dynamodb_url):
    opened = []

    def again():
        opened.append(connect(dynamodb_url, HERE))
        return opened[-1]

    yield again
    for client in opened:
        client.close()


def test_two_clients_of_one_claim_lose_nothing(database, connect_other):
    claim, other = claimed(database), connect_other()
    for number in range(0, 6, 2):
        database.store(claim, batch([number], ints("x", number)))
        other.store(claim, batch([number + 1], ints("x", number + 1), replaces=(number + 1,)))
    assert table(database)["x"] == list(range(6))
    assert now(database).rows_stored == 6


# Tables


def test_a_run_that_an_older_ems_wrote_has_no_platform(database):
    claim = claimed(database)
    for key in ("experiment", "run/0000000001"):
        where = database._results._registry.at("experiment/5f0c", key)
        database._service.call("update_item", **where, UpdateExpression="REMOVE platform")
    assert (now(database).platform, [run["platform"] for run in database.rows("run")]) == ("", [""])
    database.describe(claim, "{}")
    assert (now(database).platform, [run["platform"] for run in database.rows("run")]) == ("{}", ["{}"])


def test_check_tells_what_there_is(dynamodb_url):
    with closing(connect(dynamodb_url, HERE)) as database:
        empty = database.check()
        assert (empty.tables_version, empty.may, len(empty.faults)) == (None, (), 2)
        database.setup()
        found = database.check()
        assert (found.tables_version, found.needed_version, found.may, found.faults) == (2, 2, MAY, ())
        assert "tests" in found.role and found.latency_s > 0 and "127.0.0.1" in found.service


def test_tables_of_other_versions(database, dynamodb_url):
    prefix = dynamodb_url.rpartition("/")[2]
    newer = DynamodbDatabase(Service("eu-central-1", prefix), version=3)
    with pytest.raises(DatabaseError, match=r"version 2; this EMS needs version 3(.|\n)*ems up lab"):
        newer.experiments()
    newer.create()
    older = DynamodbDatabase(Service("eu-central-1", prefix))
    for call in (older.experiments, older.create):
        with pytest.raises(DatabaseError, match=r"version 3; this EMS knows versions up to 2(.|\n)*Upgrade EMS"):
            call()
    assert "version 3" in older.check().faults[0]
    for client in (newer, older):
        client.close()


def test_a_lab_of_version_1_is_given_the_items_of_its_stacks(database, dynamodb_url):
    for number in range(9):
        database.register(replace(REGISTRATION, id=f"id{number}", stack="abc"[number % 3]))
    for number in (2, 5, 7, 8):
        database.mark_destroyed(f"id{number}")
    registry, service = database._rows._registry, database._service
    for head in registry.collection("newest"):
        service.call("delete_item", **registry.at("newest", head["sk"]))
    service.call("put_item", TableName=service.registry, Item=item_of({"pk": "version", "sk": "schema", "version": 1}))
    with closing(connect(dynamodb_url, HERE)) as newer:
        with pytest.raises(DatabaseError, match=r"version 1; this EMS needs version 2(.|\n)*ems up lab"):
            newer.newest()
        newer.create()
        newer.create()
        assert_newest(newer, ["a", "b"])
        assert [found.id for found in newer.newest()] == ["id6", "id4", "id8"]
        newer.mark_destroyed("id6")
        newer.register(replace(REGISTRATION, id="id9", stack="a"))
        assert_newest(newer, ["a", "b"])


def test_the_script_makes_what_setup_makes(dynamodb_url):
    with closing(connect(dynamodb_url, HERE)) as database:
        client = session().create_client("dynamodb", "eu-central-1")
        script = database.setup_script().splitlines()
        for line in script:
            if "create-table" in line:
                client.create_table(**json.loads(line.partition("--cli-input-json ")[2].strip("'")))
            if "put-item" in line:
                name, _, item = line.partition("--table-name ")[2].partition(" --item ")
                client.put_item(TableName=name, Item=json.loads(item.strip("'")))
        fill_lab(database)
        assert database.experiments() == [] and database.check().faults == ()
        policies = [line for line in script if "create-policy" in line]
        assert [line.split()[5].rpartition("-")[2] for line in policies] == ["reader", "agent", "owner"]
        for line in policies:
            json.loads(line.partition("--policy-document ")[2].strip("'"))


def test_points_of_many_batches_come_as_one_range(database):
    claim = claimed(database)
    for start in range(0, 5000, 1000):
        database.store(claim, batch(list(range(start, start + 1000)), replaces=tuple(range(start, start + 1000))))
    assert list(database.points("5f0c")) == [("stored", range(5000))]
    assert database._results._known[2][4999] == STORED
