"""Points that failed, by their error."""

from __future__ import annotations

from dataclasses import replace

from ems.databases import State
from ems.spool.batch import Mark
from ems.views import failures
from tests.databases.cases import REGISTRATION
from tests.views.drawing import FINISHED, drawn

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise E\n'
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
