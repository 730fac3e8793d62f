"""What `ems teardown` would do, and its certificate."""

from __future__ import annotations

from dataclasses import replace

from ems.views import teardown
from tests.views.drawing import FINISHED, drawn


def leftover(clusters: int = 0, result: str = "", **changes) -> teardown.Leftover:
    return teardown.Leftover("digits", replace(FINISHED, **changes), clusters, result)


def test_the_certificate_says_what_is_left_when_and_at_what_cost() -> None:
    clean = drawn(teardown.certificate([leftover(result="released"), leftover(result="nothing left")]), 200)
    assert "released" in clean
    assert " UTC: nothing is left; spent $2,469.00 by 2 experiments, the newest of each stack." in clean
    held = drawn(teardown.certificate([leftover(1, machines=3)]), 200)
    assert " UTC: 1 cluster and 3 machines left; spent $1,234.50 by 1 experiment." in held
    assert "nothing is left; spent $0.00 by 0 experiments" in drawn(teardown.certificate([]), 200)


def test_what_teardown_would_do() -> None:
    command = "ems teardown --all"
    shown = drawn(
        teardown.plan([leftover(1, "to be released"), leftover(1, "kept: running", machines=2)], command), 200
    )
    assert "UTC: 2 clusters and 2 machines held; nothing was changed. Do it: ems teardown --all" in shown
    kept = drawn(teardown.plan([leftover(1, "kept: running", machines=1)], command), 200)
    assert "UTC: 1 cluster and 1 machine held; nothing would be released." in kept
    assert "UTC: nothing held; nothing would be released." in drawn(teardown.plan([], command), 200)


def test_the_shape_of_teardown() -> None:
    shown = teardown.as_object([leftover(1, "kept: running", machines=2)])
    assert list(shown) == ["at", "clusters_left", "machines_left", "cost_usd", "stacks"]
    assert (shown["clusters_left"], shown["machines_left"], shown["cost_usd"]) == (1, 2, 1234.5)
    (stack,) = shown["stacks"]
    assert stack == {
        "stack": "digits",
        "experiment_id": "5f0c",
        "state": "succeeded",
        "clusters_left": 1,
        "result": "kept: running",
    }


def test_only_what_failed_to_go_is_an_error() -> None:
    assert teardown.exit_code([leftover(result="released"), leftover(1, "kept: running (--force stops it)")]) == 0
    assert teardown.exit_code([leftover(result="released"), leftover(1, "failed: no network")]) == 5
