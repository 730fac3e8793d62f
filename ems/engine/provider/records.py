"""Rows of the registry as resources, and the invoke by which a program reads them. Deleting one keeps the row."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from typing import Any, TypeVar, get_type_hints

from ems import clusters
from ems.base.errors import DatabaseError
from ems.databases import ClusterRow, Experimenter, Funding, Project, Record, Registration, reuse, rules
from ems.engine.provider.resource import Difference, Operation, Properties, Resource
from ems.engine.provider.tokens import EXPERIMENT, row_token
from ems.lab import imports

T = TypeVar("T", bound=Record | Registration)
NUMBERS = {"int", "float", "int | None", "float | None"}


class RecordResource(Resource):
    """A row that a stack describes: experimenter, project, funding account or persistent place."""

    key = "key"

    def __init__(self, record: type[Record]) -> None:
        self.token = row_token(record)
        self.record = record
        self.inputs = json_types(record)

    def create(self, operation: Operation, inputs: Properties) -> Properties:
        with operation.database() as database:
            database.create()
            database.upsert(from_properties(self.record, inputs))
        return {}

    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        with operation.database() as database:
            return {} if database.record(self.record, inputs["key"]) else None

    def delete(self, operation: Operation, inputs: Properties) -> None:
        """The row stays: experiments point to it."""


class PlaceRow(RecordResource):
    """A persistent place, and what was found out about it: JSON, "{}" if there is nothing to be said."""

    outputs = {"found": "string"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__(ClusterRow)

    def create(self, operation: Operation, inputs: Properties) -> Properties:
        super().create(operation, inputs)
        return self._surveyed(operation, inputs)

    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        return None if super().read(operation, inputs) is None else self._surveyed(operation, inputs)

    def _surveyed(self, operation: Operation, inputs: Properties) -> Properties:
        settings = json.loads(inputs["settings"])
        place = clusters.attending(inputs["kind"], settings.get("reach"))
        return {"found": json.dumps(place.survey(operation.lab, inputs["key"], settings, operation.say))}


class ExperimentRow(Resource):
    """One experiment's row: who, which code, which environment, which money."""

    token = EXPERIMENT
    key = "key"

    def __init__(self) -> None:
        self.inputs = json_types(Registration)

    def diff(self, old_inputs: Properties, old_outputs: Properties, new: Properties) -> Difference:
        difference = super().diff(old_inputs, old_outputs, new)
        return dataclasses.replace(difference, changed=tuple(k for k in difference.changed if k not in rules.FOLLOWS))

    def create(self, operation: Operation, inputs: Properties) -> Properties:
        with operation.database() as database:
            database.register(from_properties(Registration, inputs))
        return {}

    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        with operation.database() as database:
            return {} if database.experiment(inputs["key"]) else None

    def delete(self, operation: Operation, inputs: Properties) -> None:
        """The row stays, and says when; one that is gone needs no mark."""
        with operation.database() as database:
            if database.experiment(inputs["key"]):
                database.mark_destroyed(inputs["key"])


def records() -> list[Resource]:
    """The resource types of all rows that a stack describes, but for experiments."""
    return [
        RecordResource(Experimenter),
        RecordResource(Project),
        RecordResource(Funding),
        PlaceRow(),
    ]


def plan(operation: Operation, arguments: Properties) -> Properties:
    """What a program must know at plan time about an experiment: whether it is `new`, `due`, the run's number,
    references without a row, and of a new one how many points earlier experiments have computed."""
    registration = from_properties(Registration, arguments)
    with operation.database() as database:
        experiment = database.experiment(registration.id)
        missing = database.missing(registration.experimenter, registration.project, registration.funding)
        if experiment is None:
            imports.refuse(database, registration.stack)
        reused = 0 if experiment else reuse.count(database, registration)
    reopens = experiment is not None and rules.reopened_by(experiment, registration)
    return {
        "missing": json.dumps(missing),
        "new": experiment is None,
        "due": experiment is None or not experiment.state.finished or reopens,
        "attempt": 1 if experiment is None else max(experiment.attempt + reopens, experiment.wanted_attempt),
        "reused": reused,
    }


def recorded(operation: Operation, arguments: Properties) -> Properties:
    """The registration of an experiment as its row has it; DatabaseError if there is none."""
    with operation.database() as database:
        experiment = database.experiment(arguments["experiment_id"])
    if experiment is None:
        raise DatabaseError(f"No experiment {arguments['experiment_id']} is registered.", "See `ems status`.")
    return to_properties(experiment.registration)


def known(operation: Operation, arguments: Properties) -> Properties:
    """Whether an experiment is registered."""
    with operation.database() as database:
        return {"known": database.experiment(arguments["experiment_id"]) is not None}


def registered_place(operation: Operation, arguments: Properties) -> Properties:
    """The kind of a persistent place, how runs get there, its settings as JSON; DatabaseError without a row."""
    with operation.database() as database:
        row = database.record(ClusterRow, arguments["stack"])
    if row is None:
        raise DatabaseError(
            f"No persistent place {arguments['stack']!r} is registered.", f"Register it: ems up {arguments['stack']}"
        )
    return {"kind": row.kind, "reach": clusters.reach_of(row) or "", "settings": row.settings}


INVOKES = {
    "ems:index:plan": plan,
    "ems:index:recorded": recorded,
    "ems:index:known": known,
    "ems:index:place": registered_place,
}


def to_properties(record: Record | Registration) -> dict[str, Any]:
    """The fields that are set, as JSON values; `id`, a word of Pulumi's, as `key`."""
    pairs = dataclasses.asdict(record).items()
    return {
        _property(name): value.isoformat() if isinstance(value, date) else value
        for name, value in pairs
        if value is not None
    }


def from_properties(kind: type[T], properties: Properties) -> T:
    """The row that `to_properties` made the properties of; fields that they lack have their defaults."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind) if _property(field.name) in properties]
    return kind(**{name: _value(hints[name], properties[_property(name)]) for name in names})


def _property(field: str) -> str:
    return "key" if field == "id" else field


def _value(hint: object, value: Any) -> Any:
    if hint is int:
        return int(value)
    return date.fromisoformat(value) if hint == date | None else value


def json_types(record: type) -> dict[str, str]:
    """Property → JSON type, of a dataclass."""
    fields = dataclasses.fields(record)
    return {_property(field.name): "number" if field.type in NUMBERS else "string" for field in fields}
