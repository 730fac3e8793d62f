"""Who may do what in PostgreSQL, and what a check says, on the server that all tests share."""

from __future__ import annotations

import subprocess
from contextlib import closing

import pytest

from ems.base.errors import DatabaseError
from ems.databases import MAY, Experimenter, Outcome, State, connect
from tests.databases.cases import REGISTRATION, VERSION, batch, claimed, failed, fill_lab, floats, ints, table
from tests.databases.postgresql_lab import HERE, made, people, sql, wide
from tests.databases.servers import program

__all__ = ["made", "sql"]


def test_roles_may_do_what_they_are_for(made, postgresql_server, postgresql_url):
    made.store(claimed(made, id="old"), batch([0], ints("x", 1)))
    made.setup()
    made.setup()
    roles = {"reader": "reader", "one": "agent", "two": "agent", "owner": "owner"}
    with people(postgresql_server, postgresql_url, **roles) as clients:
        reader, one, two, owner = clients.values()
        claim = claimed(one)
        one.store(claim, batch([0], ints("x", 1), ints("new", 1), marks=(failed(1),)))
        two.store(claimed(two, id="other"), batch([0], floats("x", 1.5), *wide(range(1000), 1)))
        one.release(claim, Outcome(State.SUCCEEDED, 1, 0))
        assert table(reader, columns=["x"])["x"] == [1.0]
        owner.upsert(Experimenter("new", "New"))
        owner.create()
        refused = [
            lambda: reader.register(REGISTRATION),
            lambda: reader.request_cancel("other"),
            lambda: one.upsert(Experimenter("new", "New")),
        ]
        for call in refused:
            with pytest.raises(DatabaseError, match=r"refuses what this role may not do(.|\n)*ems database check"):
                call()
        assert [client.check().may for client in (reader, one, owner)] == [MAY[:1], MAY[:2], MAY]


def test_what_would_be_set_up_can_be_run_by_psql(postgresql_server, postgresql_url, made):
    script = made.setup_script()
    with postgresql_server.database() as name:
        url = postgresql_server.url(name)
        for _ in range(2):
            command = [program("psql"), "-q", "-1", "-v", "ON_ERROR_STOP=1", url]
            subprocess.run(command, input=script, text=True, check=True, capture_output=True)
        with people(postgresql_server, url, agent="agent") as clients, closing(connect(url, HERE)) as database:
            fill_lab(database)
            claimed(clients["agent"])
            found = clients["agent"].check()
    assert (found.role, found.tables_version, found.may) == (f"{name}_agent", VERSION, MAY[:2])


def test_a_check_measures_and_names_faults(made, sql):
    found = made.check()
    assert (found.role, found.may, found.faults) == ("ems", MAY, ())
    assert found.service.startswith("PostgreSQL ")
    assert 0 < found.latency_s < 5 and abs(found.clock_ahead_s) < 5
    sql("UPDATE schema_version SET version = 99")
    made.close()
    with closing(connect(made._backend.name, HERE)) as another:
        assert "Upgrade EMS" in another.check().faults[0]


def test_a_check_before_there_are_tables(postgresql_url):
    with closing(connect(postgresql_url, HERE)) as database:
        found = database.check()
    assert (found.tables_version, found.needed_version, found.may) == (None, VERSION, ())
    assert "no tables yet" in found.faults[0]


def test_a_results_table_of_another_role_is_a_fault(made, sql, postgresql_server, postgresql_url):
    made.setup()
    made.store(claimed(made), batch([0], ints("x", 1)))  # as the superuser, not as a member of lab_agent
    with people(postgresql_server, postgresql_url, agent="agent") as clients:
        (fault,) = clients["agent"].check().faults
        assert "'digits' belongs to ems" in fault and "ems database init" in fault
        made.setup()
        assert clients["agent"].check().faults == ()
        made.close()
