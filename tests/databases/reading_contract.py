"""The promises about results that are read: all of them, some columns, or rows that fit conditions."""

from __future__ import annotations

import math
from array import array

import pytest

from ems.base.errors import DatabaseError
from ems.databases import Condition
from ems.spool.batch import Column
from tests.databases.cases import REGISTRATION, DatabaseCase, batch, claimed, floats, ints, table, texts


class ReadingContract(DatabaseCase):
    def test_no_results_before_the_first_rows(self, database):
        database.register(REGISTRATION)
        assert list(database.results("5f0c")) == []
        assert list(database.results("5f0c", columns=["any"])) == []

    def test_arrays_come_back_as_arrays(self, database):
        columns = Column("d", "float64", array("d", [0.1, -0.0])), Column("q", "int64", array("q", [1, 2]))
        database.store(claimed(database), batch([0, 1], *columns))
        (found,) = database.results("5f0c")
        assert found.columns == columns
        assert repr(found.columns[0].values) == "array('d', [0.1, -0.0])"

    def test_an_unknown_column_is_named(self, database):
        database.store(claimed(database), batch([0], ints("x", 1)))
        with pytest.raises(DatabaseError, match=r"no column 'y'(.|\n)*x"):
            list(database.results("5f0c", columns=["y"]))

    def test_keys_come_always_and_a_column_once(self, database):
        database.store(claimed(database), batch([3], ints("x", 1), ints("y", 2)))
        assert table(database, columns=["y", "point", "y"]) == {"point": [3], "row": [0], "y": [2]}
        assert table(database, columns=["row"]) == {"point": [3], "row": [0]}

    @pytest.mark.parametrize(
        ("where", "points"),
        [
            ([("f", "=", 1.5)], [1]),
            ([("f", "!=", 1.5)], [0, 2, 5]),
            ([("f", ">", -1)], [0, 1, 5]),
            ([("f", ">=", 1.5)], [1, 5]),
            ([("f", "<", math.inf)], [0, 1, 2]),
            ([("f", "<=", math.inf)], [0, 1, 2, 5]),
            ([("f", ">", -math.inf)], [0, 1, 5]),
            ([("f", "=", 0)], [0]),
            ([("i", "=", 2**63 - 1)], [1]),
            ([("i", "<", 2**63 - 1)], [0, 2, 5]),
            ([("i", ">", 2.5)], [1, 5]),
            ([("i", "=", 3.0)], [5]),
            ([("i", "!=", 2.5)], [0, 1, 2, 5]),
            ([("i", "<=", -math.inf)], []),
            ([("i", "<", 1e300)], [0, 1, 2, 5]),
            ([("größe 😀", "=", "a b")], [0]),
            ([("größe 😀", "!=", "a b")], [1, 2, 3]),
            ([("größe 😀", "<", "a")], [1, 3]),  # by code points: "", "B" < "a b" < "é"
            ([("größe 😀", ">=", "z")], [2]),
            ([("größe 😀", "=", "' OR 1=1 --")], []),
            ([("b", "=", True)], [0]),
            ([("b", "!=", True)], [1]),
            ([("i", "=", None)], [3, 4]),
            ([("größe 😀", "=", None)], [4, 5]),
            ([("b", "!=", None)], [0, 1]),
            ([("f", "!=", None), ("i", "!=", None)], [0, 1, 2, 5]),
            ([("point", ">=", 1), ("point", "<", 3)], [1, 2]),
            ([("row", "=", 1)], []),
            ([("f", ">=", 0), ("b", "=", False)], [1]),
        ],
    )
    def test_conditions_pick_rows(self, database, where, points):
        columns = (
            floats("f", 0.0, 1.5, -math.inf, math.nan, None, math.inf),
            ints("i", -1, 2**63 - 1, 2, None, None, 3),
            texts("größe 😀", "a b", "B", "é", "", None, None),
            Column("b", "bool", [True, False, None, None, None, None]),
        )
        other = claimed(database, id="other")
        database.store(other, batch([0, 1, 2, 3, 4, 5], *columns))
        database.store(claimed(database), batch([0, 1, 2, 3, 4, 5], *columns))
        conditions = [Condition(*condition) for condition in where]
        assert table(database, columns=["row"], where=conditions).get("point", []) == points

    @pytest.mark.parametrize(
        ("column", "operator", "value"),
        [
            ("i", "=", "1"),
            ("i", "=", True),
            ("i", "<", 2**63),
            ("f", "=", "x"),
            ("f", "=", math.nan),
            ("f", ">", 2**53 + 1),
            ("f", "<", None),
            ("t", "=", 1),
            ("t", "=", False),
            ("t", "=", "\ud800"),
            ("b", "=", 1),
            ("b", "=", "true"),
            ("b", "<", True),
            ("point", "=", "0"),
        ],
    )
    def test_values_that_do_not_fit_a_condition(self, database, column, operator, value):
        columns = ints("i", 1), floats("f", 1.0), texts("t", "1"), Column("b", "bool", [True])
        database.store(claimed(database), batch([0], *columns))
        with pytest.raises(DatabaseError, match=rf"(?s)column '{column}' is .*no meaning.*Allowed is "):
            list(database.results("5f0c", where=[Condition(column, operator, value)]))

    @pytest.mark.parametrize("column", ["y", "X", "experiment_id", "x; DROP TABLE digits"])
    def test_an_unknown_column_of_a_condition_is_named(self, database, column):
        database.store(claimed(database), batch([0], ints("x", 1)))
        with pytest.raises(DatabaseError, match=rf"(?s)no column '{column}'.*point, row, x"):
            list(database.results("5f0c", where=[Condition(column, "=", 1)]))

    def test_batches_of_a_wide_table_have_fewer_rows(self, database):
        wide = [floats(f"v{number:03}", *[0.5] * 250) for number in range(1000)]
        database.store(claimed(database), batch(list(range(250)), *wide))
        parts = [len(part) for part in database.results("5f0c")]
        assert sum(parts) == 250 and len(parts) > 1 and max(parts) * 1002 <= 250_000
        assert [len(part) for part in database.results("5f0c", columns=["v007"])] == [250]

    def test_results_come_in_chunks_of_one_snapshot(self, database):
        claim = claimed(database)
        database.store(claim, batch(list(range(25)), ints("x", *range(25))))
        reading = database.results("5f0c", chunk_rows=10)
        first = next(reading)
        database.store(claim, batch(list(range(25, 50)), ints("x", *range(25)), replaces=(11,)))
        assert [len(first), *(len(part) for part in reading)] == [10, 10, 5]
        assert len(table(database)["x"]) == 49
