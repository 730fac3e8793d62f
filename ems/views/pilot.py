"""What a pilot found out: how fast points are, how many fail, what memory they need, how long the rest would take."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, TypedDict

import rich.text

from ems.base.console import Text
from ems.base.messages import counted
from ems.databases import Experiment
from ems.lab.line import duration, way_on
from ems.node.driver.measured import Measured
from ems.stack.models import ClusterSpec


@dataclass(frozen=True)
class Workplace:
    """A place where the rest may be computed. `workers`: None if it is not known."""

    name: str
    workers: int | None


class PlaceObject(TypedDict):
    """What the rest would take at one place."""

    place: Annotated[str, "Kind of place, or the stack of a persistent place."]
    workers: Annotated[int | None, "How many points it computes at once; null if that is not known."]
    hours: Annotated[
        float | None, "Hours for the points that are left, if its processors are as fast; null if not known."
    ]


class PilotObject(TypedDict):
    """What a pilot found out."""

    stack: Annotated[str, "Name of the stack."]
    experiment_id: Annotated[str, "Id of the experiment, a UUID."]
    state: Annotated[str, "`piloted`; or another state, as of `ems status`, if it did not come so far or had no more."]
    points_done: Annotated[int, "How many points are stored."]
    points_failed: Annotated[int, "How many points have failed."]
    points_total: Annotated[int, "How many points there are."]
    points_left: Annotated[int, "How many are neither stored nor failed."]
    measured: Annotated[Measured | None, "What the points of the newest run cost; null if it computed none."]
    points_per_s: Annotated[float | None, "Points a second, all workers together, once they have begun; null as above."]
    point_s: Annotated[float | None, "Seconds that a worker had to work on a point; null as above."]
    hours_left: Annotated[float | None, "Hours for the points that are left, where it runs now; null as above."]
    places: Annotated[list[PlaceObject], "What they would take at each place of the lab: first where it runs now."]


def workplaces(experiment: Experiment, described: Mapping[str, ClusterSpec]) -> list[Workplace]:
    """The places of the lab: first the experiment's own, then this machine, then those that stack files describe."""
    here, spec = experiment.registration.cluster, json.loads(experiment.registration.spec)
    measured = _measured(experiment)
    own = measured["workers"] if measured else spec["cluster"].get("workers")
    there = {name: place.model_dump().get("workers") for name, place in described.items()}
    others = {"laptop": os.cpu_count(), **there}
    rest = [Workplace(name, workers) for name, workers in others.items() if name != here]
    return [Workplace(here, own or others.get(here)), *rest]


def as_object(experiment: Experiment, places: Sequence[Workplace]) -> PilotObject:
    """The shape of an entry of `ems up --pilot --json`."""
    row, measured = experiment.registration, _measured(experiment)
    left = row.points_total - experiment.points_done - experiment.points_failed
    point_s = measured["worker_s"] / measured["points"] if measured else None  # without the start of the workers
    found = [_place(place, left, point_s) for place in places]
    return {
        "stack": row.stack,
        "experiment_id": row.id,
        "state": str(experiment.state),
        "points_done": experiment.points_done,
        "points_failed": experiment.points_failed,
        "points_total": row.points_total,
        "points_left": left,
        "measured": measured,
        "points_per_s": measured["workers"] / point_s if measured and point_s else None,
        "point_s": point_s,
        "hours_left": found[0]["hours"],
        "places": found,
    }


def _measured(experiment: Experiment) -> Measured | None:
    """What the newest run measured, if it computed a point."""
    found: Measured | None = json.loads(experiment.platform or "{}").get("measured")
    return found if found and found["points"] and found["worker_s"] > 0 else None


def _place(place: Workplace, left: int, point_s: float | None) -> PlaceObject:
    hours = None if point_s is None or not place.workers else left * point_s / place.workers / 3600
    return {"place": place.name, "workers": place.workers, "hours": hours}


def page(found: PilotObject, experiment: Experiment) -> rich.text.Text:
    """For people: a line for each thing that was found out, then how to go on."""
    return Text("\n").join(_lines(found, experiment))


def _lines(found: PilotObject, experiment: Experiment) -> Iterator[rich.text.Text]:
    seen = found["points_done"] + found["points_failed"]
    yield Text.assemble((found["stack"], "bold"), f": {seen:,} of {counted(found['points_total'], 'point')}")
    measured, point_s, per_s = found["measured"], found["point_s"], found["points_per_s"]
    if measured and point_s and per_s:
        workers = counted(measured["workers"], "worker")
        yield Text(f"rate      {_rate(per_s)} points/s on {workers}, {_seconds(point_s)} of a worker for a point")
        yield Text(f"memory    {measured['memory_mb']:,.0f} MB at most in a worker")
    else:
        yield Text("rate      not known: the newest run computed no point", "dim")
    failed = f"{found['points_failed']:,} of {counted(seen, 'point')}"
    if found["points_failed"]:
        yield Text(f"failures  {failed} ({found['points_failed'] / seen:.2%}): ems failures {found['stack']}", "red")
    else:
        yield Text(f"failures  {failed}")
    yield Text(f"the rest  {counted(found['points_left'], 'point')}")
    for number, place in enumerate(found["places"]):
        yield Text(f"          {_said(place)}{' (where it runs)' if number == 0 else ''}")
    if found["points_left"]:
        yield Text(way_on(experiment), "dim")


def _said(place: PlaceObject) -> str:
    workers = counted(place["workers"], "worker") if place["workers"] else "number of workers not known"
    took = "not known" if place["hours"] is None else _spoken(place["hours"])
    return f"{place['place']}, {workers}: {took}"


def _spoken(hours: float) -> str:
    return "less than a second" if hours * 3600 < 1 else duration(timedelta(hours=hours))


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"
