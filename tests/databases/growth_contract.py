"""What a view fetches grows with what it shows, and not with the years that a lab has lived."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.old_lab import BEGAN, LOG_BYTES, PLATFORM_BYTES, SPEC_BYTES, fill, id_of
from ems.databases import Database
from tests.databases.cases import DatabaseCase
from tests.databases.traffic import Traffic

FEW, MANY = 10, 300
STACKS = 10
Fetch = Callable[[Database], object]


class GrowthContract(DatabaseCase):
    """A backend's tests give `new`: a database that is not there yet, each time another, and the traffic with it."""

    exchanges_of_puts = 4
    """In which many rows are put: a statement, and what goes before and after it."""
    row_bytes = 2_500
    """Of an experiment on its way, without what is long."""
    slack = 0
    """By how many exchanges two equal calls may differ: services are asked until they are done, or answer in pieces."""

    def new(self) -> AbstractContextManager[tuple[Database, Traffic]]:
        raise NotImplementedError

    def fetched(self, stacks: int, experiments: int, fetch: Fetch) -> Traffic:
        """In a lab of so many."""
        with self.new() as (database, traffic):
            fill(database, stacks, experiments, running=1)
            fetch(database)  # once before, as connections are opened and versions looked at
            traffic.clear()
            assert fetch(database)
            return traffic

    def compare(self, few: Traffic, many: Traffic) -> None:
        assert abs(many.exchanges - few.exchanges) <= self.slack
        assert abs(many.received - few.received) < 0.05 * few.received + 100

    def test_the_newest_of_one_stack_does_not_grow_with_its_experiments(self):
        few, many = (self.fetched(1, count, lambda d: d.newest(["stack0000"])) for count in (FEW, MANY))
        self.compare(few, many)
        assert 0 < few.received < self.row_bytes

    def test_the_newest_of_one_stack_does_not_grow_with_others(self):
        few, many = (self.fetched(count, count, lambda d: d.newest(["stack0000"])) for count in (1, MANY // 3))
        self.compare(few, many)

    def test_the_newest_of_all_grow_with_stacks_alone(self):
        few, many = (self.fetched(STACKS, count, lambda d: d.newest()) for count in (STACKS, MANY))
        self.compare(few, many)
        assert STACKS * 300 < few.received < STACKS * self.row_bytes

    def test_what_is_long_is_fetched_where_it_is_asked_for(self):
        asked = [(), ("platform",), ("spec", "platform", "log_tail")]
        found = [self.fetched(STACKS, STACKS, lambda d, also=also: d.newest(also=also)) for also in asked]
        sizes = [traffic.received for traffic in found]
        assert sizes[1] - sizes[0] > STACKS * PLATFORM_BYTES
        assert sizes[2] - sizes[1] > STACKS * SPEC_BYTES + (STACKS - 1) * LOG_BYTES  # what runs has no log yet

    def test_rows_of_copies_are_put_many_at_once(self):
        with self.new() as (database, traffic):
            fill(database, 1, 1)
            people = [
                {"id": f"p{n}", "name": "P", "email": "", "github": "", "gcp_account": "", "aws_account": ""}
                for n in range(MANY)
            ]
            of = {"experiment_id": id_of(0), "attempt": 1, "funding": "grant", "usd": 0.5, "basis": "", "at": BEGAN}
            charges = [of | {"hours": n / 2} for n in range(2)]
            traffic.clear()
            database.put_rows("experimenter", people)
            assert traffic.exchanges <= self.exchanges_of_puts
            database.put_rows("charge", charges[1:])
            assert [row["hours"] for row in database.rows("charge")] == [0.5]
            assert len(list(database.rows("experimenter"))) == MANY + 1
