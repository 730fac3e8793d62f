"""How the values of one axis may be written, checked: the forms of `ems.sweep.axes`. Pure; nothing is expanded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ems.base.messages import plain, show
from ems.stack import checks, fields
from ems.stack.keys import Collector, Problem, Problems
from ems.sweep import axes, seeds
from ems.sweep.axes import Progression, ScalarType

MOST_POINTS = 10**8
FORMS = "[1, 2, 3], {range: [start, stop, step]}, {linspace: [start, stop, count]}, {count: 200} for seeds"
SAID: Mapping[ScalarType, str] = {"int64": "numbers", "float64": "numbers", "text": "text", "bool": "true and false"}

_COUNT = checks.number(low=1, high=MOST_POINTS, whole=True)
_FIRST = checks.number(low=0, high=2**seeds.BITS - 1 - MOST_POINTS, whole=True)
_BITS = checks.number(low=seeds.BITS, high=seeds.BITS, whole=True)
_ROOT = checks.number(low=0, high=2**63 - 1, whole=True)
_SEEDS = {"count": _COUNT.check, "root": _ROOT.check, "first": _FIRST.check, "bits": _BITS.check}
_NUMBER = {"type": "number"}
_THREE = {"type": "array", "items": _NUMBER, "minItems": 3, "maxItems": 3}


def _form(required: str, **parts: Any) -> dict[str, Any]:
    return {"type": "object", "properties": parts, "required": [required], "additionalProperties": False}


SCHEMA: Mapping[str, Any] = {
    "oneOf": [
        {
            "type": "array",
            "items": {"type": ["number", "string", "boolean"]},
            "minItems": 1,
            "uniqueItems": True,
            "description": "Values, in this order.",
        },
        _form("range", range=_THREE | {"description": "[start, stop, step] in decimals; stop is included if hit."}),
        _form("linspace", linspace=_THREE | {"description": "[start, stop, count]: doubles, both ends included."}),
        _form(
            "count",
            count=_COUNT.schema | {"description": "So many independent seeds."},
            root=_ROOT.schema | {"description": "Another root gives other seeds; 0 if left out."},
            first=_FIRST.schema | {"description": "The number of the first of them; 0 if left out."},
        ),
    ]
}


def axis(value: object) -> Any:
    """One axis; ValueError or Problems if it is none of the forms."""
    if isinstance(value, list | tuple):
        return _listed(value)
    if not isinstance(value, dict):
        raise ValueError(f"is {show(value)}: allowed is a list of values, also of one, or another form: {FORMS}")
    if set(value) not in ({"range"}, {"linspace"}, {"ratios"}) and not {"count"} <= set(value) <= set(_SEEDS):
        keys = ", ".join(map(plain, map(str, value))) or "no key"
        raise ValueError(f"is a mapping with {keys}: allowed is {FORMS} (with another `root: 1` if need be)")
    parts = {"range": _range, "linspace": _linspace, "ratios": _ratios, **_SEEDS}
    found = Collector()
    kept = {key: found.at((key,), parts[key], item) for key, item in value.items()}
    found.finish()
    return kept


def _listed(values: list[object] | tuple[object, ...]) -> list[Any]:
    if not values:
        raise ValueError("is empty: allowed is one value or more")
    found = Collector()
    kept = [found.at((place,), _value, value) for place, value in enumerate(values)]
    found.finish()
    found.located += [*_other_types(kept), *_repeated_values(kept)]
    found.finish()
    return kept


def _value(value: object) -> Any:
    allowed = "text, a number, true or false"
    if value is None or isinstance(value, list | tuple | dict):
        raise ValueError(f"is {show(value)}: allowed is {allowed}")
    return fields.check_scalar(value, allowed)


def _other_types(values: list[Any]) -> Iterator[Problem]:
    expected = _said(values[0])
    for place, value in enumerate(values):
        if _said(value) != expected:
            problem = f"is {show(value)}, but the first value is {show(values[0])}: allowed on one axis is one type"
            yield (place,), f"{problem}, here {expected}"


def _said(value: Any) -> str:
    return SAID[axes.type_of((value,))]


def _repeated_values(values: list[Any]) -> Iterator[Problem]:
    seen: dict[tuple[bool, Any], int] = {}
    for place, value in enumerate(values):
        first = seen.setdefault((isinstance(value, bool), value), place)
        if first != place:
            yield (place,), f"is {show(value)}, as is value {first + 1}: allowed is each value once"


def _numbers(value: object, names: str) -> list[Any]:
    """A list of as many numbers as there are `names`."""
    expected = len(names.split(", "))
    if not isinstance(value, list | tuple) or len(value) != expected:
        raise ValueError(f"is {show(value)}: allowed is a list of {expected}, [{names}]")
    found = Collector()
    kept = [found.at((place,), _number, item) for place, item in enumerate(value)]
    found.finish()
    return kept


def _number(value: object) -> Any:
    kept = fields.check_scalar(value, "a number")
    if not isinstance(kept, int | float) or isinstance(kept, bool):
        unquoted = ", without quotes" if isinstance(value, str) else ""
        raise ValueError(f"is {show(value)}: allowed is a number{unquoted}")
    return kept


def _range(value: object) -> list[Any]:
    start, stop, step = kept = _numbers(value, "start, stop, step")
    if step == 0:
        raise Problems([((2,), "is 0: allowed is a step above or below 0")])
    found = Progression.stepped(start, stop, step)
    if found.count < 1:
        raise Problems(
            [((2,), f"is {show(step)}, which leads from {show(start)} away from {show(stop)}: turn its sign")]
        )
    if found.count > MOST_POINTS:
        raise ValueError(
            f"has {shortly(math.log10(found.count), found.count)} values: allowed are up to {MOST_POINTS:,}"
        )
    if any(type(number) is float for number in kept):
        kept = list(map(_as_double, kept))
    _expect_distinct(Progression.stepped(*kept))
    return kept


def _as_double(number: float) -> float:
    if number != float(number):
        raise ValueError(f"has {show(number)}, which no double keeps: write all three without a point, or up to 2^53")
    return float(number)


def _ratios(value: object) -> list[int]:
    """As grids are recorded, not as people write them."""
    if not isinstance(value, list | tuple) or len(value) != 4 or not all(type(item) is int for item in value):
        raise ValueError(f"is {show(value)}: allowed are four whole numbers, [first, step, count, denominator]")
    _, step, count, denominator = value
    if not (step and 1 <= count <= MOST_POINTS and denominator >= 1):
        raise ValueError(f"is {show(value)}: allowed are a step other than 0, a count and a denominator above 0")
    return list(value)


def _linspace(value: object) -> list[Any]:
    start, stop, count = _numbers(value, "start, stop, count")
    found = Collector()
    found.at((2,), checks.number(low=2, high=MOST_POINTS, whole=True).check, count)
    if start == stop:
        found.located.append(((1,), f"is {show(stop)}, as is the start: allowed is another number"))
    found.finish()
    _expect_distinct(Progression.even(start, stop, count))
    return [start, stop, int(count)]


def _expect_distinct(found: Progression) -> None:
    if not found.distinct:
        raise ValueError("has steps so small that neighbours are the same double: allowed is each value once")


def shortly(magnitude: float, exact: int) -> str:
    """A count for a message; of a number of 15 digits or more only its `magnitude`, the logarithm."""
    return f"{exact:,}" if magnitude < 15 else f"about 10^{round(magnitude)}"
