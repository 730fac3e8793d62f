"""The promises about results that are stored."""

from __future__ import annotations

import math
import threading
import uuid
from contextlib import suppress
from datetime import UTC, date, datetime

import pandas
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ems.base.errors import DatabaseError
from ems.databases import Condition, State
from ems.node.driver.typed_rows import Gathered
from ems.spool.batch import Batch, Column
from tests.databases.cases import (
    PROCESSES,
    SHARED,
    WORKERS,
    DatabaseCase,
    batch,
    claimed,
    floats,
    ints,
    now,
    store_without_end,
    table,
    texts,
    write_elsewhere,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda name: name.lower() not in {"experiment_id", "point", "row", "rowid"}
)
VALUES = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float64": st.floats(allow_nan=False),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    "bool": st.booleans(),
}


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    points = draw(st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=6))
    names = draw(st.lists(NAMES, unique_by=str.lower, max_size=5))
    columns = []
    for name in names:
        type = draw(st.sampled_from(sorted(VALUES)))
        values = draw(st.lists(st.none() | VALUES[type], min_size=len(points), max_size=len(points)))
        columns.append(Column(name, type, values))
    return batch(points, *columns)


def has_nul(stored: Batch) -> bool:
    return any(isinstance(value, str) and "\0" in value for column in stored.columns for value in column.values)


class ResultsContract(DatabaseCase):
    def test_rows_are_readable_at_once_in_order(self, database, connect_again):
        claim, reader = claimed(database), connect_again()
        database.store(claim, batch([5, 2, 5], ints("x", 3, 1, 2), rows=[1, 0, 0]))
        assert table(reader) == {"point": [2, 5, 5], "row": [0, 0, 1], "x": [1, 2, 3]}
        assert now(reader).rows_stored == 3

    def test_the_same_batch_twice_is_stored_once(self, database):
        claim = claimed(database)
        for first in ([1, 2], [1, 2], [2, 3], [3, 3]):
            database.store(claim, batch(first, ints("x", *first)))
        assert table(database) == {"point": [1, 2, 3], "row": [0, 0, 0], "x": [1, 2, 3]}
        assert now(database).rows_stored == 3

    def test_a_points_rows_are_replaced_as_a_unit(self, database):
        claim, other = claimed(database), claimed(database, id="other")
        database.store(claim, batch([1, 1, 1, 2], ints("x", 1, 2, 3, 4), rows=[0, 1, 2, 0]))
        database.store(other, batch([1], ints("x", 9)))
        database.store(claim, batch([1], ints("x", 7), replaces=(1, 2, 6)))
        assert table(database) == {"point": [1], "row": [0], "x": [7]}
        assert table(database, "other")["x"] == [9]
        assert (now(database).rows_stored, now(database, "other").rows_stored) == (1, 1)

    def test_integers_widen_to_doubles(self, database):
        claim = claimed(database)
        database.store(claim, batch([0, 1], ints("x", 3, -(2**53)), texts("t", "a", None)))
        database.store(claim, batch([2], floats("x", 0.5), ints("new", 1)))
        database.store(claim, batch([3, 4], ints("x", 7, None)))
        found = table(database)
        assert found["x"] == [3.0, -(2.0**53), 0.5, 7.0, None]
        assert [type(value) for value in found["x"][:4]] == [float] * 4
        assert found["t"] == ["a", None, None, None, None]
        assert found["new"] == [None, None, 1, None, None]
        assert now(database).rows_stored == 5

    @pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, -(2**63) + 1])
    def test_an_integer_that_is_no_exact_double_does_not_widen(self, database, number):
        claim = claimed(database)
        database.store(claim, batch([0], ints("x", number), floats("y", 1.0)))
        with pytest.raises(DatabaseError, match=rf"column 'x'.*{number}"):
            database.store(claim, batch([1], floats("x", 0.5)))
        with pytest.raises(DatabaseError, match=rf"column 'y'.*{number}"):
            database.store(claim, batch([1], ints("y", number)))
        assert table(database) == {"point": [0], "row": [0], "x": [number], "y": [1.0]}

    def test_great_integers_that_are_exact_do_widen(self, database):
        claim = claimed(database)
        database.store(claim, batch([0, 1], ints("x", 2**60, -(2**63))))
        database.store(claim, batch([2], floats("x", 0.5)))
        assert table(database)["x"] == [2.0**60, -(2.0**63), 0.5]

    def test_other_conflicts_of_types_change_nothing(self, database):
        claim = claimed(database)
        database.store(claim, batch([0], ints("i", 1), texts("t", "a"), Column("b", "bool", [True])))
        before = now(database), table(database)
        conflicts = [texts("i", "x"), ints("t", 1), floats("b", 1.0), ints("b", 1), floats("t", 0.5)]
        for column in conflicts:
            with pytest.raises(
                DatabaseError, match=rf"'digits': column '{column.name}' is .* cannot take {column.type}"
            ):
                database.store(claim, batch([0], ints("new", 1), column, replaces=(0,)))
        assert (now(database), table(database)) == before

    def test_what_could_not_be_stored_is_refused_before_and_changes_nothing(self, database):
        database.check_columns("digits", batch([0], ints("i", 1), texts("größe 😀", "a")))
        claim = claimed(database)
        database.store(claim, batch([0], ints("i", 2**53 + 1), texts("t", "a"), ints("small", 1), floats("f", 0.5)))
        before = now(database), table(database)
        database.check_columns("digits", batch([0], ints("i", 5), texts("t", "b"), floats("small", 0.5), ints("f", 1)))
        for column, problem in (
            (texts("i", "x"), "column 'i' is int64 and cannot take text"),
            (floats("i", 0.5), "9007199254740993"),
            (ints("f", 2**53 + 1), "9007199254740993"),
            (ints("T", 1), "differ only by case"),
            (ints("row", 1), "cannot be the name of a column"),
        ):
            with pytest.raises(DatabaseError, match=problem):
                database.check_columns("digits", batch([0], column))
        assert (now(database), table(database)) == before

    def test_a_column_of_nulls_fits_every_type(self, database):
        claim = claimed(database)
        database.store(claim, batch([0], ints("i", 1)))
        database.store(claim, batch([1], texts("i", None)))
        assert table(database)["i"] == [1, None]

    @pytest.mark.parametrize("name", ["experiment_id", "Point", "row", "ROWID", "", "a\0b"])
    def test_names_that_no_column_can_have(self, database, name):
        with pytest.raises(DatabaseError, match="cannot be the name of a column"):
            database.store(claimed(database), batch([0], ints(name, 1)))
        assert table(database) == {}

    def test_names_that_differ_only_by_case(self, database):
        claim = claimed(database)
        with pytest.raises(DatabaseError, match="differ only by case"):
            database.store(claim, batch([0], ints("loss", 1), ints("Loss", 2)))
        database.store(claim, batch([0], ints("loss", 1)))
        with pytest.raises(DatabaseError, match="differ only by case"):
            database.store(claim, batch([1], ints("LOSS", 1)))
        with pytest.raises(DatabaseError, match="twice"):
            database.store(claim, batch([1], ints("x", 1), ints("x", 1)))

    def test_any_other_name_is_a_name(self, database):
        names = [
            "select",
            "order",
            "table",
            "user",
            "null",
            "timestamp",
            "with space",
            'quo"te',
            "back`tick",
            "semi;colon",
            "größe",
            "数",
            "😀",
            "%s",
            "?",
            ":x",
            "[a]",
        ]
        claim = claimed(database)
        database.store(claim, batch([0], *(ints(name, n) for n, name in enumerate(names))))
        assert table(database) == {"point": [0], "row": [0]} | {name: [n] for n, name in enumerate(names)}
        assert table(database, columns=["😀", "select"]) == {"point": [0], "row": [0], "😀": [12], "select": [0]}

    def test_every_kind_of_value_survives(self, database):
        numbers = [-0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 3.0, None]
        nul = "nul\0in it" if self.takes_nul else "no nul"
        words = ["", "😀 and é", "line\nline", nul, "x" * 2_000_000, "'quoted'", "123", None]
        whole = [2**63 - 1, -(2**63), 0, -1, 1, 2**53 + 1, None, None]
        flags = [True, False, True, None, None, None, None, None]
        columns = floats("f", *numbers), texts("t", *words), ints("i", *whole), Column("b", "bool", flags)
        database.store(claimed(database), batch(list(range(8)), *columns))
        found = table(database)
        assert (found["t"], found["i"], found["b"]) == (words, whole, flags)
        assert [type(value) for value in found["b"][:3]] == [bool] * 3
        expected = [repr(value) if self.exact_nan or value == value else "None" for value in numbers]
        assert [repr(value) for value in found["f"]] == expected

    def test_dates_and_times_are_text_that_can_be_compared(self, database):
        noon = datetime(2026, 1, 31, 12)
        found: list[dict] = [
            {"date": date(2026, 1, 31), "when": noon, "at": noon.time(), "zoned": noon.replace(tzinfo=UTC)},
            {"date": None, "when": noon.replace(microsecond=500), "at": None, "zoned": pandas.NaT},
            {"when": pandas.Timestamp("2026-02-01 00:00:00.000000001"), "zoned": pandas.Timestamp(noon, tz="UTC")},
        ]
        gathered = Gathered([], {})
        for point, row in enumerate(found):
            gathered.add(point, {}, row)
        database.store(claimed(database), Batch(gathered.points, gathered.rows, gathered.typed().columns))
        assert table(database) == {
            "point": [0, 1, 2],
            "row": [0, 0, 0],
            "date": ["2026-01-31", None, None],
            "when": ["2026-01-31 12:00:00", "2026-01-31 12:00:00.000500", "2026-02-01 00:00:00.000000001"],
            "at": ["12:00:00", None, None],
            "zoned": ["2026-01-31 12:00:00+00:00", None, "2026-01-31 12:00:00+00:00"],
        }
        later = [Condition("when", ">", "2026-01-31 12:00:00")]
        assert table(database, columns=["row"], where=later)["point"] == [1, 2]

    def test_text_that_is_no_unicode_is_refused(self, database):
        with pytest.raises(DatabaseError, match="valid Unicode"):
            database.store(claimed(database), batch([0], texts("t", "\ud800")))

    def test_text_with_nul_is_stored_or_refused_and_changes_nothing(self, database):
        claim = claimed(database)
        if self.takes_nul:
            database.store(claim, batch([0], texts("t", "a\0b")))
            assert table(database)["t"] == ["a\0b"]
        else:
            with pytest.raises(DatabaseError, match=r"(?s)value cannot be stored.*without NUL"):
                database.store(claim, batch([0], texts("t", "a\0b")))
            assert (table(database), now(database).rows_stored) == ({}, 0)

    @pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
    def test_an_integer_beyond_64_bits_is_refused_and_changes_nothing(self, database, number):
        claim = claimed(database)
        with pytest.raises(DatabaseError, match=r"cannot be stored(.|\n)*integers from -2\^63 to 2\^63-1"):
            database.store(claim, batch([0, 1], ints("x", 1, number)))
        assert (table(database), now(database).rows_stored) == ({}, 0)

    def test_columns_of_unequal_length_are_refused(self, database):
        with pytest.raises(DatabaseError, match="'x' of a batch has 1 values for 2 rows"):
            database.store(claimed(database), batch([0, 1], ints("x", 1)))

    def test_a_whole_singular_vector(self, database):
        wide = [floats(f"ve{n:03}", n / 7) for n in range(1000)]
        claim = claimed(database)
        database.store(claim, batch([0], *wide[:500], ints("a", 1), texts("b", "x")))
        database.store(claim, batch([1], *wide, Column("c", "bool", [True])))
        found = table(database)
        assert len(found) == 1003 + 2
        assert (found["ve999"], found["ve499"]) == ([None, 999 / 7], [499 / 7, 499 / 7])

    def test_an_empty_result(self, database):
        claim = claimed(database)
        database.store(claim, batch([], ints("x"), floats("y")))
        database.store(claim, batch([], replaces=(0,)))
        assert list(database.results("5f0c")) == []
        assert now(database).rows_stored == 0
        database.store(claim, batch([4]))
        assert table(database) == {"point": [4], "row": [0], "x": [None], "y": [None]}

    def test_many_processes_write_at_once(self, database, address, processes):
        writing = [processes.submit(write_elsewhere, address, number, 6) for number in range(WORKERS)]
        for future in writing:
            future.result()
        for number in range(WORKERS):
            found = now(database, f"writer-{number}")
            assert (found.state, found.rows_stored, found.points_done) == (State.SUCCEEDED, 300, 6)
            assert table(database, f"writer-{number}") == {
                "point": list(range(300)),
                "row": [0] * 300,
                "writer": [number] * 300,
            }

    def test_what_returned_survives_a_kill(self, database, address):
        hearing, told = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=store_without_end, args=(address, told))
        process.start()
        told.close()
        stored = [hearing.recv() for _ in range(12)][-1]
        process.kill()
        process.join()
        with suppress(EOFError):
            while True:
                stored = hearing.recv()
        found = table(database)["x"]
        assert len(found) in (stored, stored + 20)
        assert found == list(range(len(found)))
        assert now(database).rows_stored == len(found)

    def test_made_in_one_thread_and_used_in_another(self, database):
        claim = claimed(database)
        thread = threading.Thread(target=database.store, args=(claim, batch([0], ints("x", 1))))
        thread.start()
        thread.join()
        assert now(database).rows_stored == 1

    @settings(max_examples=60, deadline=None, suppress_health_check=SHARED)
    @given(stored=batches())
    def test_any_batch_comes_back(self, database, stored):
        assume(self.takes_nul or not has_nul(stored))
        id = uuid.uuid4().hex
        claim = claimed(database, id=id, results_table=f"t_{id}")
        database.store(claim, stored)
        found = table(database, id)
        order = sorted(range(len(stored)), key=lambda index: stored.points[index])
        assert found.get("point", []) == [stored.points[index] for index in order]
        for column in stored.columns:
            expected = [column.values[index] for index in order]
            assert list(map(repr, found.get(column.name, []))) == list(map(repr, expected))
