"""What people are told of a pilot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ems.databases import Experiment, State
from ems.lab import Lab
from ems.stack.models import ClusterSpec
from ems.views import pilot
from tests.conftest import registered

MEASURED = {"points": 100, "worker_s": 50.0, "took_s": 30.0, "workers": 2, "memory_mb": 123.4}


@pytest.fixture
def piloted(here: Lab) -> Experiment:
    registered(here)
    with here.database() as database:
        found = database.newest(["pi"], also=["spec"])[0]
    row = replace(found.registration, points_total=10_000, cluster="laptop")
    counts = {"points_done": 97, "points_failed": 3, "state": State.PILOTED}
    return replace(found, registration=row, platform=json.dumps({"measured": MEASURED}), **counts)


def places(experiment: Experiment) -> list[pilot.Workplace]:
    described = {
        "server": ClusterSpec.model_validate({"kind": "laptop", "workers": 16}),
        "unknown": ClusterSpec.model_validate({"kind": "laptop"}),
    }
    return pilot.workplaces(experiment, described)


def test_the_rest_is_told_for_each_place(piloted: Experiment) -> None:
    found = pilot.as_object(piloted, places(piloted))
    assert (found["points_left"], found["point_s"], found["points_per_s"]) == (9_900, 0.5, 4.0)
    assert [(place["place"], place["workers"]) for place in found["places"]] == [
        *[("laptop", 2), ("server", 16), ("unknown", None)],
    ]
    assert found["hours_left"] == found["places"][0]["hours"] == pytest.approx(9_900 * 0.5 / 2 / 3600)
    assert found["places"][1]["hours"] == pytest.approx(9_900 * 0.5 / 16 / 3600)
    assert found["places"][2]["hours"] is None
    assert pilot.page(found, piloted).plain == (
        "pi: 100 of 10,000 points\n"
        "rate      4 points/s on 2 workers, 0.5 s of a worker for a point\n"
        "memory    123 MB at most in a worker\n"
        "failures  3 of 100 points (3.00%): ems failures pi\n"
        "the rest  9,900 points\n"
        "          laptop, 2 workers: 41 min 15 s (where it runs)\n"
        "          server, 16 workers: 5 min 09 s\n"
        "          unknown, number of workers not known: not known\n"
        "Compute the rest: ems up pi"
    )


def test_high_rates_are_whole_numbers(piloted: Experiment) -> None:
    quick = replace(piloted, platform=json.dumps({"measured": MEASURED | {"worker_s": MEASURED["points"] / 7_600}}))
    assert "rate      15,200 points/s on 2 workers" in pilot.page(pilot.as_object(quick, places(quick)), quick).plain


@pytest.mark.parametrize(
    "platform", ["", json.dumps({"measured": None}), json.dumps({"measured": MEASURED | {"points": 0}})]
)
def test_a_pilot_that_computed_nothing_knows_no_rate(piloted: Experiment, platform: str) -> None:
    """As where all points of the sample were reused, or an older EMS ran it."""
    found = pilot.as_object(replace(piloted, platform=platform), places(piloted))
    assert (found["measured"], found["point_s"], found["hours_left"]) == (None, None, None)
    assert "rate      not known" in pilot.page(found, piloted).plain
