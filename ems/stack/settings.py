"""The keys of a place that are its own kind's: each kind has a model of them, `Settings` in its folder.

They stand beside `kind:` in `ems:cluster`, and in the `cluster:` of an experiment beside `kind:` or `stack:`. Of an
experiment at a persistent place the kind is known only to those who have read the place's own stack file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from ems.base.errors import Fault
from ems.stack import problems
from ems.stack.keys import Location
from ems.stack.models import ClusterSpec, PlaceSpec
from ems.stack.strict import Strict

Places = Mapping[str, type[Strict]]
"""The model of the settings of each kind of place."""
NO_PLACES: Places = {}
OF_CLUSTER: Location = ("ems:cluster",)
OF_EXPERIMENT: Location = ("ems:experiment", "cluster")


def place_in(data: object, where: Location) -> Mapping[str, Any]:
    """What a stack file says of a place; empty where it says nothing that fits. `data`: the value of `where[0]`."""
    for key in where[1:]:
        data = data.get(key) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def faults(where: Location, place: Mapping[str, Any], model: type[Strict]) -> Iterator[Fault]:
    """What is wrong with the settings of a place."""
    common = ClusterSpec.model_fields if where == OF_CLUSTER else PlaceSpec.model_fields
    try:
        model.model_validate({key: value for key, value in place.items() if key not in common})
    except ValidationError as error:
        yield from problems.faults(where, model, error, also=list(common))
