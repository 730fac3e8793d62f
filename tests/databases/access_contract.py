"""The promises about those who may not come in or not write, and about tables that are gone or too new."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases import Claim, Database, Experimenter, Outcome, State, connect
from tests.databases.cases import (
    LONG_S,
    REGISTRATION,
    Address,
    DatabaseCase,
    batch,
    claimed,
    failed,
    ints,
    now,
    states,
    table,
)

Check = Callable[[Database], None]


def may_only_read(database: Database, says: str) -> None:
    assert (table(database)["x"], states(database)) == ([1, 2], {"stored": [0, 1], "failed": [2]})
    assert list(database.failures("5f0c")) == [failed(2)]
    assert database.missing("researcher", "study", "grant") == []
    assert [found.id for found in database.experiments("digits")] == ["5f0c"]
    assert database.check().may == ("read",)
    claim = Claim("5f0c", 1, "digits", None)
    told_at_once(says, lambda: database.upsert(Experimenter("new", "New")))
    told_at_once(says, lambda: database.register(REGISTRATION))
    told_at_once(says, lambda: database.claim("5f0c", agent="a", lease_s=LONG_S))
    told_at_once(says, lambda: database.beat(claim, LONG_S))
    told_at_once(says, lambda: database.store(claim, batch([3], ints("x", 3))))
    told_at_once(says, lambda: database.release(claim, Outcome(State.SUCCEEDED, 3, 0)))
    told_at_once(says, lambda: database.request_cancel("5f0c"))


def may_nothing(database: Database, says: str) -> None:
    told_at_once(says, database.experiments)
    told_at_once(says, lambda: database.register(REGISTRATION))


def told_at_once(says: str, call: Callable[[], object]) -> None:
    """`says`: what the error says and then, below, what to do."""
    with pytest.raises(DatabaseError) as raised:
        call()
    assert not isinstance(raised.value, DatabaseUnavailable)
    assert re.search(says, f"{raised.value}", re.DOTALL), raised.value


class AccessContract(DatabaseCase):
    says_read_only: str
    says_wrong: str
    says_lost = "has lost a table.*from a backup"
    part = "charge"
    """One of the tables."""

    @pytest.fixture
    def as_reader(self, address: Address) -> Callable[[Check], None]:
        """Does the check with a client that may read, but not write."""
        raise NotImplementedError

    @pytest.fixture
    def as_stranger(self, address: Address) -> Callable[[Check], None]:
        """Does the check with a client of a wrong password, or whatever the service has in its stead."""
        raise NotImplementedError

    @pytest.fixture
    def drop(self, address: Address) -> Callable[[str], None]:
        """Drops a table without EMS."""
        raise NotImplementedError

    @pytest.fixture
    def set_version(self, address: Address) -> Callable[[int], None]:
        raise NotImplementedError

    def use_part(self, database: Database, claim: Claim) -> None:
        database.release(claim, Outcome(State.SUCCEEDED, 2, 0))

    def test_who_may_only_read_reads_and_is_told_at_once(self, database, as_reader):
        claim = claimed(database)
        database.store(claim, batch([0, 1], ints("x", 1, 2), marks=(failed(2),)))
        before = now(database)
        as_reader(partial(may_only_read, says=self.says_read_only))
        assert (now(database), table(database)["x"]) == (before, [1, 2])
        database.store(claim, batch([3], ints("x", 3)))

    def test_wrong_credentials_are_told_at_once(self, database, as_stranger):
        as_stranger(partial(may_nothing, says=self.says_wrong))
        assert database.experiments() == []

    def test_a_lost_table_is_told_and_nothing_changes(self, database, drop):
        claim = claimed(database)
        drop(self.part)
        told_at_once(self.says_lost, lambda: self.use_part(database, claim))
        assert (now(database).state, now(database).rows_stored) == (State.RUNNING, 0)

    def test_tables_of_a_newer_ems_are_left_alone(self, database, address, set_version):
        database.register(REGISTRATION)
        set_version(99)
        says = "version 99; this EMS knows versions up to.*Upgrade EMS"
        with closing(connect(*address)) as older:
            told_at_once(says, older.experiments)
            told_at_once(says, older.create)
            told_at_once(says, lambda: older.register(REGISTRATION))
            told_at_once(says, lambda: older.claim("5f0c", agent="a", lease_s=LONG_S))
            assert any("version 99" in fault for fault in older.check().faults)


class SqlAccessContract(AccessContract):
    """A backend's tests give `execute`."""

    @pytest.fixture
    def execute(self, address: Address) -> Callable[[str], None]:
        """Runs SQL without EMS."""
        raise NotImplementedError

    @pytest.fixture
    def drop(self, execute):
        return lambda name: execute(f"DROP TABLE {name}")

    @pytest.fixture
    def set_version(self, execute):
        return lambda version: execute(f"UPDATE schema_version SET version = {version} WHERE version > 0")

    def test_lost_results_are_not_read_as_none_nor_begun_anew(self, database, drop, execute):
        claim, other = claimed(database), claimed(database, id="other", results_table="elsewhere")
        database.store(claim, batch([0, 1], ints("x", 1, 2)))
        assert database.check().faults == ()
        drop("digits")
        calls: list[Callable[[], object]] = [
            lambda: table(database),
            lambda: states(database),
            lambda: database.store(claim, batch([2], ints("x", 3))),
            lambda: database.copy_points(other, "5f0c", [(0, 0)]),
        ]
        for call in calls:
            told_at_once("'digits' is gone, with 2 rows.*Restore it.*UPDATE", call)
        assert [fault.partition(",")[0] for fault in database.check().faults] == ["results table 'digits' is gone"]
        execute("UPDATE experiment SET rows_stored = 0 WHERE results_table = 'digits'")  # as the error says
        database.store(claim, batch([0], ints("x", 1)))
        assert (table(database)["x"], states(database), now(database).rows_stored) == ([1], {"stored": [0]}, 1)

    def test_a_check_names_tables_that_are_gone(self, database, drop):
        drop("charge")
        (fault,) = database.check().faults
        assert "gone: charge" in fault
