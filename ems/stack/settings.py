"""The keys of a place that are its own kind's: each kind has a model of them, `Settings` in its folder.

They stand beside `kind:` in `ems:cluster`, and in the `cluster:` of an experiment beside `kind:` or `stack:`. Of an
experiment at a persistent place the kind is known only to those who have read the place's own stack file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ems.base.errors import Fault
from ems.base.messages import nearest
from ems.stack.keys import Location, Problems, dotted

Places = Mapping[str, type[BaseModel]]
"""The model of the settings of each kind of place."""
NO_PLACES: Places = {}


def place_in(kind: str, data: object) -> tuple[Location, Mapping[str, Any]]:
    """Where a stack file describes a place, and what it says of it; empty for a lab, or where nothing fits."""
    where: Location = (f"ems:{kind}",) if kind == "cluster" else (f"ems:{kind}", "cluster")
    found = data.get("cluster") if kind == "experiment" and isinstance(data, dict) else data
    return where, found if kind != "lab" and isinstance(found, dict) else {}


def faults(
    where: Location, place: Mapping[str, Any], common: frozenset[str], model: type[BaseModel]
) -> Iterator[Fault]:
    """What is wrong with the settings of a place; `common`: the keys that all kinds have."""
    own = {key: value for key, value in place.items() if key not in common}
    try:
        model.model_validate(own)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield from _located(where, detail, common, model)


def _located(where: Location, detail: Any, common: frozenset[str], model: type[BaseModel]) -> Iterator[Fault]:
    inside = detail.get("ctx", {}).get("error")
    location = (*where, *detail["loc"])
    if isinstance(inside, Problems):
        yield from (Fault(dotted((*location, *below)), problem) for below, problem in inside.located)
    elif detail["type"] == "extra_forbidden":
        known = nearest(str(detail["loc"][-1]), [*common, *model.model_fields])
        yield Fault(dotted(location), f"is not a key here: {known}")
    elif detail["type"] == "missing":
        yield Fault(dotted(location), f"is missing: {model.model_fields[str(detail['loc'][-1])].description}")
    else:
        yield Fault(dotted(location), str(inside or detail["msg"]))
