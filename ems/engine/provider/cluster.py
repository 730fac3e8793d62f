"""Any evanescent place as a resource: created it is ready for one experiment, deleted it leaves nothing that costs."""

from __future__ import annotations

from ems import clusters
from ems.base import plugins
from ems.base.errors import EmsError
from ems.databases import Experiment
from ems.engine.provider.resource import Operation, Properties, Resource
from ems.engine.provider.tokens import token


class EvanescentCluster(Resource):
    """A place, made ready for one experiment: its environment built, its code at the commit bundled."""

    key = "experiment_id"
    inputs = {"experiment_id": "string", "environment": "string", "python": "string", "commit": "string"}  # noqa: RUF012

    def __init__(self, kind: str) -> None:
        self.token = token(kind)
        self._kind = kind

    def create(self, operation: Operation, inputs: Properties) -> Properties:
        with operation.database() as database:
            experiment = database.experiment(inputs["experiment_id"])
            if experiment is None:
                raise EmsError(
                    f"Experiment {inputs['experiment_id']} has no row.", "Run `ems up` again: it registers it."
                )
            place = self._place(operation, experiment)
            if place.starts_runs:
                database.set_provisioning(experiment.id, machines=place.machines(experiment.registration))
        place.prepare(operation.lab, experiment.registration, operation.say)
        return {}

    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        place = self._place(operation, _row(operation, inputs))
        return {} if place.is_prepared(operation.lab, inputs["experiment_id"]) else None

    def delete(self, operation: Operation, inputs: Properties) -> None:
        place = self._place(operation, _row(operation, inputs))
        place.release(operation.lab, inputs["experiment_id"], operation.say)

    def _place(self, operation: Operation, experiment: Experiment | None) -> clusters.Place:
        """Loaded where it is used: a missing package breaks only the lab that has such a place."""
        return clusters.of(operation.lab, experiment) if experiment else clusters.place(self._kind)


def _row(operation: Operation, inputs: Properties) -> Experiment | None:
    """None if the database has lost it."""
    with operation.database() as database:
        return database.experiment(inputs["experiment_id"])


def evanescent_clusters() -> list[Resource]:
    """One resource type for each kind of place."""
    return [EvanescentCluster(kind) for kind in plugins.names("clusters")]
