from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems.databases import Database, reuse, rounds
from ems.databases.sqlite.database import SqliteDatabase
from ems.sweep import Sweep
from tests.databases.cases import REGISTRATION, batch, claimed, empty, failed, fill_lab, states

VALUES = [
    st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 2.5, 3]), min_size=1, max_size=4, unique=True),
    st.tuples(st.integers(0, 3), st.integers(0, 3)).map(lambda ends: {"range": [min(ends), max(ends), 1]}),
    st.integers(1, 4).map(lambda count: {"range": [0.5, 0.5 * count, 0.5]}),
    st.tuples(st.integers(1, 4), st.sampled_from([0, 7])).map(lambda seeds: {"count": seeds[0], "root": seeds[1]}),
]


@st.composite
def grids(draw: st.DrawFn) -> list[dict]:
    found = []
    for _ in range(draw(st.integers(1, 2))):
        grid = {name: draw(draw(st.sampled_from(VALUES))) for name in draw(st.sampled_from(["a", "ab", "abc", "bz"]))}
        if "c" in grid and draw(st.booleans()):
            many = draw(st.integers(1, 3))
            zipped = {name: draw(st.permutations(range(4)))[:many] for name in "ac"}
            grid = {"b": grid["b"], "zip": [zipped]}
        found.append(grid)
    return found


def by_parameters(earlier: Sweep, sweep: Sweep) -> dict[int, set[int]]:
    """Which points of `earlier` each point of `sweep` equals in values and types, found one by one."""
    there: dict[str, set[int]] = {}
    for index in range(len(earlier)):
        there.setdefault(json.dumps(earlier.parameters(index)), set()).add(index)
    same = {index: there.get(json.dumps(sweep.parameters(index)), set()) for index in range(len(sweep))}
    return {index: found for index, found in same.items() if found}


@settings(max_examples=400, deadline=None)
@given(grids(), grids())
def test_what_is_shared_is_equal_and_of_grids_of_the_same_form_all_that_is_equal(old: list, new: list) -> None:
    earlier, sweep = Sweep.of(old), Sweep.of(new)
    found: dict[int, set[int]] = {}
    for there, here in reuse.shared(earlier, sweep, [range(len(earlier))]):
        for source, point in zip(there, here, strict=True):
            found.setdefault(point, set()).add(source)
    expected = by_parameters(earlier, sweep)
    assert all(sources <= expected.get(point, set()) for point, sources in found.items())
    if not any("zip" in grid for grid in [*old, *new]):
        assert found == expected


@settings(max_examples=300, deadline=None)
@given(grids(), grids(), st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), min_size=1, max_size=4))
def test_only_what_is_stored_is_shared(old: list, new: list, spans: list[tuple[int, int]]) -> None:
    earlier, sweep = Sweep.of(old), Sweep.of([{"a": [9]}, *new])
    stored = [range(min(first, len(earlier)), min(first + count, len(earlier))) for first, count in spans]
    everything = pairs_of(reuse.shared(earlier, sweep, [range(len(earlier))]))
    for span in stored:
        assert pairs_of(reuse.shared(earlier, sweep, [span])) == {pair for pair in everything if pair[0] in span}


def pairs_of(found: Iterable[reuse.Pair]) -> set[tuple[int, int]]:
    return {pair for there, here in found for pair in zip(there, here, strict=True)}


def points(old: list[dict], new: list[dict], *stored: range) -> dict[int, int]:
    pairs = reuse.shared(Sweep.of(old), Sweep.of(new), stored or [range(len(Sweep.of(old)))])
    return {point: source for there, here in pairs for source, point in zip(there, here, strict=True)}


def test_more_seeds_values_before_and_between_and_another_grid() -> None:
    old = [{"n": [10, 30], "seed": {"count": 2}}]
    assert points(old, [{"n": [10, 30], "seed": {"count": 3}}]) == {0: 0, 1: 1, 3: 2, 4: 3}
    assert points(old, [{"n": [5, 10, 20, 30], "seed": {"count": 2}}]) == {2: 0, 3: 1, 6: 2, 7: 3}
    assert points(old, [{"m": [1], "seed": {"count": 2}}, *old]) == {2: 0, 3: 1, 4: 2, 5: 3}
    assert points(old, [{"n": [30], "seed": {"count": 1}}]) == {0: 2}
    assert points(old, [{"n": [10, 30], "seed": {"count": 3}}], range(1, 3)) == {1: 1, 3: 2}


def test_zipped_axes_grow_together_from_a_single_pair_on() -> None:
    old = [{"zip": [{"m": [1], "n": [7]}], "seed": {"count": 2}}]
    assert points(old, [{"zip": [{"m": [0, 1, 1], "n": [7, 8, 7]}], "seed": {"count": 2}}]) == {4: 0, 5: 1}


def test_axes_that_move_together_in_one_of_the_grids_alone_share_nothing() -> None:
    together, alone = [{"zip": [{"a": [1, 2], "c": [3, 4]}]}], [{"a": [1, 2], "c": [3, 4]}]
    assert points(together, alone) == points(alone, together) == {}
    assert points(together, together) == {0: 0, 1: 1}


def test_other_axes_roots_and_types_share_nothing() -> None:
    old = [{"n": [0, 1], "seed": {"count": 2}}]
    assert points(old, [{"n": [0, 1]}]) == points(old, [{"n": [0, 1], "seed": {"count": 2, "root": 1}}]) == {}
    assert points(old, [{"n": [False, True], "seed": {"count": 2}}]) == {}
    assert points(old, [{"n": [0.0, 1.0], "seed": {"count": 2}}]) == {}
    assert points(old, [{"n": [0, 1], "seed": {"count": 2, "bits": 31}}]) == {}
    assert points(old, [*old, {"n": [0.5], "seed": {"count": 2}}]) == {}, "0 is 0.0 where there is 0.5"
    assert points([{"n": [0.0, 1.0], "s": [1]}], [{"n": [0.5, 1], "s": [1, 2]}]) == {2: 1}


def test_axes_of_a_million_values_are_looked_through_and_longer_ones_are_not() -> None:
    def shared(length: int) -> int:
        old, new = (Sweep.of([{"x": {"range": [first, first + length - 1, 1]}}]) for first in (0, 1))
        return sum(len(here) for _, here in reuse.shared(old, new, [range(length)]))

    assert shared(reuse.MOST_LOOKED_UP) == reuse.MOST_LOOKED_UP - 1
    assert shared(reuse.MOST_LOOKED_UP + 1) == 0


def test_long_axes_are_matched_without_looking_at_each_value() -> None:
    old, new = ([{"x": {"range": [0, last, 1]}, "y": {"linspace": [0, 1, 3]}}] for last in (10**7, 10**8))
    some = range(2 * 10**7, 2 * 10**7 + 4)
    assert points(old, new, some) == dict(zip(some, some, strict=True))


def sweeping(count: int, job_digest: str = "j") -> dict[str, str]:
    spec = json.dumps({"job": {"function": "job:f", "sweep": [{"n": [1, 2], "seed": {"count": count}}]}})
    return {"spec": spec, "job_digest": job_digest}


@pytest.fixture
def database(tmp_path) -> Database:
    made = SqliteDatabase(tmp_path / "ems.db")
    made.create()
    fill_lab(made)
    return made


def test_what_is_stored_or_empty_is_copied_once_and_counted_before(database: Database) -> None:
    for id, stored in (("first", [0, 1, 2]), ("second", [2, 3])):
        marks = (empty(4), failed(5)) if id == "first" else ()
        database.store(claimed(database, id=id, **sweeping(3)), batch(stored, marks=marks))
    claimed(database, id="other-code", **sweeping(3), tree="u" * 40)
    grown = claimed(database, id="grown", **sweeping(4))
    registration = replace(REGISTRATION, id="grown", **sweeping(4))
    assert reuse.count(database, registration) == 5
    assert reuse.copy(database, grown, registration, bytearray(1), lambda: None) == 5
    assert states(database, "grown") == {"stored": [0, 1, 2, 4], "empty": [5]}
    assert reuse.copy(database, grown, registration, bytearray([0b110111]), lambda: None) == 0


LONG = 90  # points: more than bytes of a bitmap have bits


def long_sweep(first: int) -> dict[str, str]:
    values = {"n": {"range": [first, first + LONG - 1, 1]}}
    return {"spec": json.dumps({"job": {"function": "job:f", "sweep": [values]}}), "job_digest": "j"}


@pytest.mark.parametrize("shift", [0, 1, 7, 20])
@pytest.mark.parametrize("known", [[], [0], [8, 9, 17], range(30, 60), [63, 64, 71, 72, 89], range(90)])
def test_points_that_are_done_are_left_alone_and_all_others_marked(database: Database, known, shift: int) -> None:
    database.store(claimed(database, id="first", **long_sweep(0)), batch([*range(3, 50), *range(55, LONG)]))
    registration = replace(REGISTRATION, id="new", **long_sweep(shift))
    done = bytearray((LONG + 7) // 8)
    for point in known:
        done[point // 8] |= 1 << point % 8
    (source,) = database.reusable(registration)
    found = list(reuse.reusable_points(database, source, rounds.sweep_of(database, registration), done))
    expected = {(n, n - shift) for n in (*range(3, 50), *range(55, LONG)) if n >= shift and n - shift not in known}
    assert pairs_of(found) == expected
    assert sum(len(here) for _, here in found) == len(expected)
    here = {point for _, point in expected}
    assert {point for point in range(LONG) if done[point // 8] >> point % 8 & 1} == {*known, *here}


def test_points_are_counted_without_copying(database: Database) -> None:
    registration = replace(REGISTRATION, id="new", **long_sweep(0))
    assert reuse.count(database, registration) == 0
    database.store(claimed(database, id="first", **long_sweep(0)), batch(range(LONG)))
    assert reuse.count(database, registration) == LONG
    claim = claimed(database, id="new", **long_sweep(0))
    assert reuse.copy(database, claim, registration, bytearray(12), lambda: None) == LONG
    other = replace(registration, id="other", job_digest="other")
    assert reuse.copy(database, claim, other, bytearray(12), lambda: None) == 0


def test_points_that_are_left_out_are_not_reused(database: Database) -> None:
    database.store(claimed(database, id="first", **long_sweep(0)), batch(range(LONG)))
    spec = {
        "job": {"function": "job:f", "sweep": [{"n": {"range": [0, LONG + 9, 1]}}], "exclude": ["n < 50", {"n": 60}]}
    }
    here = {"spec": json.dumps(spec), "job_digest": "j"}
    registration = replace(REGISTRATION, id="new", **here)
    assert reuse.count(database, registration) == LONG - 51
    claim = claimed(database, id="new", **here)
    assert reuse.copy(database, claim, registration, bytearray(reuse.left_out(registration)), lambda: None) == LONG - 51
    assert states(database, "new") == {"stored": [*range(50, 60), *range(61, LONG)]}


def test_copying_stops_when_told_and_keeps_what_it_has(database: Database) -> None:
    database.store(claimed(database, id="first", **sweeping(3)), batch([0, 1, 2, 3]))
    grown = claimed(database, id="grown", **sweeping(4))
    registration = replace(REGISTRATION, id="grown", **sweeping(4))

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        reuse.copy(database, grown, registration, bytearray(1), stop)
    assert reuse.copy(database, grown, registration, bytearray(1), lambda: None) == 4
