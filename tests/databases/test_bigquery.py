"""BigQuery by an emulator; test_bigquery_service.py has what that cannot show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from google.cloud import bigquery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ems.base.errors import DatabaseError, FencedOut, UserError
from ems.databases import Outcome, State, connect
from ems.databases.bigquery import columns as bigquery_columns
from ems.databases.bigquery import results as bigquery_results
from ems.databases.bigquery.database import BigqueryDatabase
from ems.databases.bigquery.service import EMULATOR, Address
from ems.databases.columns import RESERVED
from tests.databases.bigquery_gate import everybody, gate
from tests.databases.bigquery_server import PROJECT, BigqueryServer
from tests.databases.cases import (
    VERSION,
    batch,
    claimed,
    claimed_twice,
    failed,
    fill_lab,
    floats,
    ints,
    now,
    states,
    table,
)
from tests.databases.cases import Address as Place
from tests.databases.contract import DatabaseContract
from tests.databases.results_contract import batches
from tests.node.bench import ROWS, bench_of, half
from tests.processes import PATIENCE_S, eventually

FEW = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


# The emulator takes seconds for each test of the contract: `make test` runs these, `make drill` the others.
TELLING = {
    "test_without_tables_every_call_names_the_command",
    "test_register_writes_every_field",
    "test_register_again_updates_but_keeps_state",
    "test_newest_is_the_first_of_each_stack",
    "test_newest_has_what_is_long_only_where_it_is_asked_for",
    "test_claim_starts_a_run",
    "test_a_lease_keeps_others_out",
    "test_the_same_agent_takes_over_and_fences_the_old_run",
    "test_claims_raced_by_threads_have_one_winner",
    "test_release_ends_the_run_once",
    "test_cancel_reaches_a_live_run",
    "test_results_of_a_finished_experiment_do_not_change",
    "test_rows_are_readable_at_once_in_order",
    "test_the_same_batch_twice_is_stored_once",
    "test_a_points_rows_are_replaced_as_a_unit",
    "test_integers_widen_to_doubles",
    "test_every_kind_of_value_survives",
    "test_dates_and_times_are_text_that_can_be_compared",
    "test_a_whole_singular_vector",
    "test_points_come_as_ranges",
    "test_a_point_changes_as_a_unit",
    "test_failures_are_due_again_for_the_runs_after_a_reopening_and_not_after_a_crash",
    "test_points_are_copied_with_their_origin",
    "test_an_earlier_runs_batch_counts_only_for_points_of_which_there_is_nothing",
}


class TestBigquery(DatabaseContract):
    """With fewer examples: each takes the emulator seconds."""

    telling = TELLING
    changes_of_stacks = 10

    @pytest.fixture
    def address(self, bigquery_url, tmp_path) -> Place:
        return bigquery_url, tmp_path

    @FEW
    @given(stored=batches())
    def test_any_batch_comes_back(self, database, stored):
        DatabaseContract.test_any_batch_comes_back.hypothesis.inner_test(self, database, stored)

    @FEW
    @given(data=st.data())
    def test_whatever_is_stored_and_copied_every_point_has_one_state(self, database, data):
        contract = DatabaseContract.test_whatever_is_stored_and_copied_every_point_has_one_state
        contract.hypothesis.inner_test(self, database, data)

    @FEW
    @given(data=st.data())
    def test_whatever_an_earlier_run_left_changes_nothing_that_a_later_one_did(self, database, data):
        contract = DatabaseContract.test_whatever_an_earlier_run_left_changes_nothing_that_a_later_one_did
        contract.hypothesis.inner_test(self, database, data)


@pytest.fixture
def made(bigquery_url) -> Iterator[BigqueryDatabase]:
    with closing(BigqueryDatabase(bigquery_url)) as database:
        database.create()
        fill_lab(database)
        yield database


def client() -> bigquery.Client:
    return BigqueryDatabase(f"bigquery://{PROJECT}/any")._bigquery.client


# Addresses and names


@pytest.mark.parametrize("url", ["bigquery://", "bigquery://p", "bigquery://p/", "bigquery://p/a-b", "bigquery://P/d"])
def test_a_url_without_project_and_dataset_is_refused(url, tmp_path):
    with pytest.raises(UserError, match=r"names no project and dataset(.|\n)*bigquery://PROJECT/DATASET"):
        connect(url, tmp_path)


@pytest.mark.parametrize("query", ["?key=secret", "?location=", "#x"])
def test_options_without_meaning_are_refused(query, tmp_path):
    with pytest.raises(UserError, match="options that mean nothing"):
        connect(f"bigquery://p/d{query}", tmp_path)


def test_a_location_is_for_a_dataset_that_is_to_be_made():
    assert Address.of("bigquery://my-project/lab?location=EU") == Address("my-project", "lab", "EU")
    with closing(BigqueryDatabase("bigquery://my-project/lab?location=EU")) as database:
        script = database.setup_script()
    assert script.startswith("CREATE SCHEMA IF NOT EXISTS `my-project`.lab OPTIONS (location = 'EU');")
    assert "roles/bigquery.jobUser" in script


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("loss", "loss"),
        ("größe", "größe"),
        ("数_1", "数_1"),
        ("a.b", "a_2e_b"),
        ("😀", "_1f600_"),
        ("2nd", "column_2nd"),
        ("_PARTITIONTIME", "column__PARTITIONTIME"),
        ("x" * 400, "x" * 300),
    ],
)
def test_names_in_bigquery(name, field):
    (found,) = bigquery_columns.new_fields({}, {name: "int64"})
    assert (found.name, found.description, found.field_type) == (field, name, "INT64")


def test_names_that_would_be_the_same_in_bigquery_differ():
    fields = bigquery_columns.new_fields({}, {"a.b": "int64", "a_2e_b": "text", "A_2E_B_2": "bool", "batch": "int64"})
    assert [field.name for field in fields] == ["a_2e_b", "a_2e_b_2", "A_2E_B_2_2", "batch_2"]
    assert {"experiment_id", "point", "row"} < RESERVED


def test_the_number_of_columns_is_bounded():
    bigquery_columns.check_width("t", 9_996)
    with pytest.raises(DatabaseError, match="would have 9997 columns; BigQuery allows 9996"):
        bigquery_columns.check_width("t", 9_997)


# Tables


def test_tables_read_without_ems(made):
    claim = claimed(made)
    made.store(claim, batch([0], floats("loss", 0.25), ints("a.b", 7)))
    made.release(claim, Outcome(State.SUCCEEDED, 1, 0, exit_code=0, error="nul\0", cost_usd=2.5))
    dataset = f"{PROJECT}.{made._bigquery.address.dataset}"
    (row,) = client().query_and_wait(
        f"SELECT e.stack, r.agent, r.exit_code, e.error, c.usd, d.loss, d.a_2e_b FROM `{dataset}.experiment` e "
        f"JOIN `{dataset}.run` r ON r.experiment_id = e.id JOIN `{dataset}.charge` c ON c.experiment_id = e.id "
        f"JOIN `{dataset}.digits` d ON d.experiment_id = e.id"
    )
    assert row.values() == ("digits", "a", 0, "nul␀", 2.5, 0.25, 7)
    results = client().get_table(f"{dataset}.digits")
    assert results.clustering_fields == ["experiment_id", "point", "row"]
    assert (results.time_partitioning.type_, results.labels) == ("MONTH", {"application": "ems"})


def test_the_code_that_ems_read_prints(made):
    claim = claimed(made)
    made.store(claim, batch([1, 0], floats("loss", 0.5, 0.25)))
    python, sql, r = (made.snippet(language, now(made), Path("/lab")) for language in ("python", "sql", "r"))
    assert [row.loss for row in client().query_and_wait(sql)] == [0.25, 0.5]
    assert sql.partition("\n")[2].rstrip(";\n") in python and f'Client(project="{PROJECT}")' in python
    compile(python, "snippet", "exec")
    assert '"results", "digits", "--format", "csv"' in r


def loaded(database: BigqueryDatabase) -> list[int]:
    """The points of all rows in the results table, also of those that do not count."""
    return sorted(point for (point,) in database._bigquery.query("SELECT point FROM digits"))


@pytest.mark.parametrize(("lost", "rows"), [(b"INSERT INTO loaded_batch", [0, 1]), (b'"load"', [0, 0, 1, 1])])
def test_what_is_sent_again_as_its_answer_was_lost_counts_once(made, bigquery_url, monkeypatch, lost, rows):
    claim = claimed(made)
    with gate(os.environ[EMULATOR], everybody, loses=lost) as host:
        monkeypatch.setenv(EMULATOR, host)
        with closing(BigqueryDatabase(bigquery_url)) as another:
            another.store(claim, batch([0, 1], ints("x", 5, 6), marks=(failed(2),)))
    assert (table(made)["x"], states(made)) == ([5, 6], {"stored": [0, 1], "failed": [2]})
    assert (now(made).rows_stored, loaded(made)) == (2, rows)
    made.release(claim, Outcome(State.SUCCEEDED, 2, 1))
    assert (table(made)["x"], loaded(made)) == ([5, 6], [0, 1])


def test_rows_that_a_zombie_loads_never_count_and_those_of_its_heir_are_left_alone(made, bigquery_url, monkeypatch):
    zombie, load, heirs = claimed(made), bigquery_results.load, []

    def overtaken(*args):
        number = load(*args)
        if not heirs:
            heirs.append(claimed(made))
        return number

    monkeypatch.setattr(bigquery_results, "load", overtaken)
    with closing(BigqueryDatabase(bigquery_url)) as another, pytest.raises(FencedOut):
        another.store(zombie, batch([0], ints("x", 1)))
    assert (table(made), loaded(made)) == ({}, [0])

    def disturbed(*args):
        number = load(*args)
        with pytest.raises(FencedOut):
            made.release(zombie, Outcome(State.LOST, 0, 0))
        return number

    monkeypatch.setattr(bigquery_results, "load", disturbed)
    made.store(heirs[0], batch([0, 1], ints("x", 2, 3)))
    assert (table(made)["x"], loaded(made)) == ([2, 3], [0, 1])


def test_a_table_of_somebody_else_is_left_alone(made):
    made._bigquery.query("CREATE TABLE digits (a INT64)")
    with pytest.raises(DatabaseError, match="'digits' of the database was not made by EMS"):
        made.store(claimed(made), batch([0], floats("x", 0.5)))


def test_a_newer_schema_is_named(made, bigquery_url):
    made._bigquery.query("UPDATE schema_version SET version = 99 WHERE TRUE")
    with closing(BigqueryDatabase(bigquery_url)) as older:
        for call in (older.experiments, older.create):
            with pytest.raises(DatabaseError, match=r"version 99; this EMS knows versions up to(.|\n)*Upgrade EMS"):
                call()


def test_runs_of_an_older_schema_have_no_platform(made, bigquery_url):
    claim, took_s = claimed_twice(made), now(made).took_s
    for statement in (
        "ALTER TABLE run DROP COLUMN platform",
        "ALTER TABLE experiment DROP COLUMN used_s",
        "DROP TABLE proposed",
        "DROP TABLE output",
        "ALTER TABLE charge DROP COLUMN basis",
        "ALTER TABLE experiment DROP COLUMN files_left",
        "ALTER TABLE experiment DROP COLUMN pilot",
        "UPDATE schema_version SET version = 2 WHERE TRUE",
    ):
        made._bigquery.query(statement)
    with closing(BigqueryDatabase(bigquery_url)) as newer:
        with pytest.raises(DatabaseError, match=f"version 2; this EMS needs version {VERSION}"):
            newer.experiments()
        newer.create()
        newer.create()
        assert now(newer).platform == ""
        newer.describe(claim, "{}")
        assert now(newer).platform == "{}"
        assert now(newer).took_s == pytest.approx(took_s)


def test_what_a_check_finds(made):
    found = made.check()
    assert (found.faults, found.tables_version, "Google BigQuery" in found.service) == ((), found.needed_version, True)
    assert found.latency_s > 0 and abs(found.clock_ahead_s) < 60


def test_few_rows_come_at_once_and_then_ever_rarer(made):
    pauses = [made.store_pause_s(running_s) for running_s in range(0, 86_400, 1)]
    loads, at = 0, 0.0
    while at < 86_400:
        loads, at = loads + 1, at + made.store_pause_s(at)
    assert pauses == sorted(pauses) and pauses[0] <= 1 and pauses[-1] <= 300
    assert 100 < loads < 1_000
    assert made.least_beat_s == 60


# Away


@pytest.fixture
def own() -> Iterator[BigqueryServer]:
    """An emulator of the test's own."""
    server = BigqueryServer.make()
    yield server
    server.end()


def test_an_agents_run_outlives_a_crash_of_the_service(own, tmp_path, monkeypatch):
    monkeypatch.setenv(EMULATOR, own.host)
    with bench_of(own.url(), tmp_path) as bench:
        run_dir = bench.new()
        agent = bench.start(run_dir)
        half(run_dir, agent)
        eventually(lambda: bench.row().rows_stored == 100)
        own.kill()
        (run_dir / "go").touch()
        own.start()
        assert agent.wait(PATIENCE_S) == 0
        row = bench.row()
        assert (row.state, row.error, row.rows_stored, row.attempt) == (State.SUCCEEDED, "", 200, 1)
        assert bench.values() == ROWS
        assert (run_dir / "starts").read_text() == "x"
