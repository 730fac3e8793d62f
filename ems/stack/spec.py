"""The spec of one stack file: `parse` takes what Pulumi hands over, or a file says, and names every fault at once.

No I/O, no Pulumi.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import TypeVar

from pydantic import ValidationError

from ems.base import plugins
from ems.base.errors import Fault, StackFileError
from ems.base.messages import show
from ems.stack import command_words, problems, rounds, settings, sweep_choice
from ems.stack.keys import across, below, dotted, secrets
from ems.stack.models import MODELS, ClusterSpec, ExperimentSpec, Kind, PlaceSpec, Spec
from ems.stack.settings import NO_PLACES, Places
from ems.stack.strict import Strict

MOST_FAULTS = 100
AnyPlace = TypeVar("AnyPlace", "ClusterSpec", "PlaceSpec")


def parse(kind: Kind, data: object, places: Places = NO_PLACES) -> Spec:
    """The spec in `data`, the JSON-like value of `ems:<kind>`. StackFileError has all faults (the first 100).

    `places`: the settings that each kind of place has (`ems.clusters.settings`).
    """
    secret = [Fault(dotted((f"ems:{kind}", *location)), SECRET) for location in islice(secrets(data), MOST_FAULTS)]
    others = chain(across(kind, data, plugins.names("clusters")), _setting_faults(kind, data, places))
    if kind == "experiment":
        others = chain(others, command_words.faults(data), sweep_choice.faults(data))
    try:
        spec = MODELS[kind].model_validate(data)
    except ValidationError as error:
        others = chain(others, problems.faults((f"ems:{kind}",), MODELS[kind], error))
    found = chain(secret, (fault for fault in others if not below(fault.key, secret)))
    faults = list(islice(found, MOST_FAULTS + 1))
    if not faults and not (faults := list(rounds.faults(spec))):
        return _settled(spec, places)
    if len(faults) > MOST_FAULTS:
        faults[MOST_FAULTS] = Fault("", f"and more: these are the first {MOST_FAULTS} faults")
    raise StackFileError(faults)


def _setting_faults(kind: Kind, data: object, places: Places) -> Iterator[Fault]:
    """Of an experiment at a persistent place, whose kind is not known here, `at` finds them."""
    if kind == "lab":
        return
    where = settings.OF_CLUSTER if kind == "cluster" else settings.OF_EXPERIMENT
    place = settings.place_in(data, where)
    if place.get("kind") in plugins.names("clusters"):
        yield from settings.faults(where, place, places.get(place["kind"], Strict))


def _settled(spec: Spec, places: Places) -> Spec:
    """With the defaults of the settings of its place."""
    if isinstance(spec, ExperimentSpec):
        return spec.model_copy(update={"cluster": _with_defaults(spec.cluster, spec.cluster.kind, places)})
    return _with_defaults(spec, spec.kind, places) if isinstance(spec, ClusterSpec) else spec


def _with_defaults(place: AnyPlace, kind: str | None, places: Places) -> AnyPlace:
    if kind is None:
        return place
    own = places.get(kind, Strict).model_validate(place.model_extra or {})
    return place.model_copy(update=own.model_dump(mode="json"))


def at(spec: ExperimentSpec, kind: str, places: Places) -> ExperimentSpec:
    """An experiment's spec with the settings of a persistent place of this `kind`; StackFileError if they are wrong."""
    if found := list(settings.faults(settings.OF_EXPERIMENT, spec.cluster.model_dump(mode="json"), places[kind])):
        raise StackFileError(found)
    return spec.model_copy(update={"cluster": _with_defaults(spec.cluster, kind, places)})


def to_json(spec: Spec) -> str:
    """Canonical: sorted keys, no spaces, shortest exact floats. `from_json` gives an equal spec."""
    return json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(kind: Kind, text: str, places: Places = NO_PLACES) -> Spec:
    """The spec in JSON `text`; StackFileError with all faults if it is not one."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StackFileError([Fault(f"ems:{kind}", f"is {show(text)}: allowed is JSON ({error})")]) from error
    return parse(kind, data, places)


SECRET = (
    "is a `secure:` value: allowed is plain text only. Keep secrets out of stack files: use the service's own ways "
    "(a credential helper, pgpass, a cloud profile), or write the name under which a secret store has it "
    "(ems:database takes ?password_from=NAME)"
)
