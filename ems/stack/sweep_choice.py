"""What a stack file's `order:` and `exclude:` say of a sweep's points, checked. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ems.base.errors import Fault, StackFileError
from ems.base.messages import nearest, plain, show
from ems.stack import sweep_grids
from ems.stack.checks import Checked, finite
from ems.stack.fields import as_hashed
from ems.stack.keys import Collector, Location, Problem, dotted
from ems.sweep import Sweep, exclusion
from ems.sweep.axes import ScalarType
from ems.sweep.conditions import KINDS, SAID, parse

ORDERS = ("grid", "random")
POINTS = 'points, as {n: 100, seed: 3}, and conditions, as "m > n"'
EXCLUDE_KEY: Location = ("ems:experiment", "job", "exclude")


def _check_order(value: object) -> str:
    if value not in ORDERS:
        said = nearest(value, ORDERS) if isinstance(value, str) else f"allowed are {', '.join(ORDERS)}"
        raise ValueError(f"is {show(value)}: {said}")
    return str(value)


ORDER = Checked(_check_order, {"type": "string", "enum": [*ORDERS]})


def _check_exclude(value: object) -> tuple[Any, ...]:
    """Points and conditions, in the order given; whether they fit the sweep is found by `faults`."""
    found = Collector()
    kept = found.of_each((), _check_item, value, POINTS)
    found.finish()
    return tuple(kept.values())


def _check_item(value: object) -> str | dict[str, Any]:
    if isinstance(value, str) and value.strip():
        return value
    if not isinstance(value, dict) or not value:
        raise ValueError(f"is {show(value)}: allowed are {POINTS}")
    found = Collector()
    kept = {name: found.at((name,), _check_value, item) for name, item in value.items()}
    found.finish()
    return kept


def _check_value(value: object) -> object:
    """The value; a number as ids are computed from it, 2.0 as 2."""
    if not isinstance(value, bool | str) and finite(value) is None:
        raise ValueError(f'is {show(value)}: allowed is one value; for several, a condition, as "n == 1 or n == 2"')
    return as_hashed(value)


_VALUES = {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean"]}, "minProperties": 1}
_ITEM = {"oneOf": [{"type": "string", "minLength": 1}, _VALUES]}
EXCLUDE = Checked(_check_exclude, {"oneOf": [*_ITEM["oneOf"], {"type": "array", "items": _ITEM, "minItems": 1}]})


def faults(data: object) -> Iterator[Fault]:
    """What of `job.exclude` does not go with the sweep, read from the raw data of an experiment."""
    job = data.get("job") if isinstance(data, dict) else None
    if not isinstance(job, dict) or not job.get("exclude") or "sweep" not in job:
        return
    if job.get("propose"):
        problem = "stands beside `propose`, which decides what points there are: allowed is one of the two"
        yield Fault(dotted(EXCLUDE_KEY), problem)
        return
    try:
        types, given = Sweep.of(sweep_grids.check(job["sweep"])).types, job["exclude"]
        _check_exclude(given)
    except ValueError:  # told by itself
        return
    for where, item in _located(given):
        problems = _said(item, types) if isinstance(item, str) else _misfits(item, types)
        yield from (Fault(dotted((*where, *below)), problem) for below, problem in problems)


def _located(given: Any) -> list[tuple[Location, Any]]:
    if isinstance(given, list | tuple):
        return [((*EXCLUDE_KEY, place), item) for place, item in enumerate(given)]
    return [(EXCLUDE_KEY, given)]


def _said(condition: str, types: Mapping[str, ScalarType]) -> Iterator[Problem]:
    try:
        parse(condition, types)
    except ValueError as error:
        yield (), f"is {show(condition)}, and {error}"


def _misfits(values: Mapping[Any, Any], types: Mapping[str, ScalarType]) -> Iterator[Problem]:
    for name, value in values.items():
        if name not in types:
            yield (name,), f"is not a parameter of the sweep: {nearest(plain(str(name)), types)}"
            continue
        wanted = KINDS[types[name]]
        given = "truth" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        if given != wanted:
            yield (name,), f"is {show(value)}, {SAID[given]}: allowed is {SAID[wanted]}, as the sweep has it"


def kept(job: Mapping[str, Any]) -> int:
    """How many points the job of a spec computes. StackFileError if there are none, or it cannot be told."""
    points = len(Sweep.of(job.get("sweep", ())))
    if not job.get("exclude"):
        return points
    try:
        left = points - exclusion.count(exclusion.of_job(job))
    except ValueError as error:
        raise StackFileError([Fault(dotted(EXCLUDE_KEY), f"has a condition that {error}")]) from error
    if left:
        return left
    found = [place for place, bits in enumerate(exclusion.each_of_job(job)) if exclusion.count(bits) == points]
    keys = [dotted((*EXCLUDE_KEY, place)) for place in found] or [dotted(EXCLUDE_KEY)]
    raise StackFileError([Fault(key, f"leaves out all {points:,} points: allowed is what leaves some") for key in keys])


def idle(job: Mapping[str, Any]) -> Iterator[Fault]:
    """A hint for each item that leaves out no point; of what cannot be told, none."""
    with suppress(ValueError):
        for place, bits in enumerate(exclusion.each_of_job(job)):
            if not any(bits):
                item = job["exclude"][place]
                said = show(item) if isinstance(item, str) else ", ".join(f"{name}: {item[name]}" for name in item)
                yield Fault(dotted((*EXCLUDE_KEY, place)), f"is {said}, which no point of the sweep has")
