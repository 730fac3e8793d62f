"""One experiment's run as a resource: start it or attach to it, watch its row, stop it."""

from __future__ import annotations

import time

from ems import clusters
from ems.base.backoff import Backoff
from ems.base.errors import DatabaseError, DatabaseUnavailable, EmsError
from ems.databases import Experiment, State
from ems.engine.provider.resource import Difference, Operation, Properties, Resource
from ems.engine.provider.tokens import RUN
from ems.lab.line import GOES_ON, progress_line
from ems.lab.patience import Patience, look_s, stop_s

FIRST_POLL_S, POLL_S = 0.05, 0.25
TAIL_CHARACTERS = 1200  # of the log's end; the engine keeps 2 KB of a message


class Run(Resource):
    """The run of an experiment. What it is follows from id and digest, whether there is something to do from `due`."""

    token = RUN
    key = "experiment_id"
    inputs = {  # noqa: RUF012
        "experiment_id": "string",
        "digest": "string",
        "due": "boolean",
        "attempt": "number",
        "cluster": "string",
        "commit": "string",
        "environment": "string",
        "points": "number",
    }
    outputs = {  # noqa: RUF012
        "state": "string",
        "points_done": "number",
        "points_failed": "number",
        "rows": "number",
        "error": "string",
    }

    def diff(self, old_inputs: Properties, old_outputs: Properties, new: Properties) -> Difference:
        replacing = tuple(key for key in ("experiment_id", "digest") if old_inputs.get(key) != new.get(key))
        if replacing:
            return Difference(replacing, replacing)
        if new.get("due"):
            return Difference(("due",))
        return Difference(() if _finished(old_outputs) else ("attempt",))

    def create(self, operation: Operation, inputs: Properties) -> Properties:
        experiment = _row(operation, inputs)
        if not experiment.state.finished:
            experiment = _attend(operation, experiment)
        return _outputs(experiment)

    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        with operation.database() as database:
            experiment = database.experiment(inputs["experiment_id"])
        return _outputs(experiment) if experiment else None

    def delete(self, operation: Operation, inputs: Properties) -> None:
        """Cancel what is alive and wait a bounded time for its rows to be stored."""
        with operation.database() as database:
            experiment = database.experiment(inputs["experiment_id"])
        if experiment and not experiment.state.finished:
            _stop(operation, experiment, clusters.of(operation.lab, experiment))


def _finished(outputs: Properties) -> bool:
    return outputs.get("state") in {str(state) for state in State if state.finished}


def _row(operation: Operation, inputs: Properties) -> Experiment:
    with operation.database() as database:
        experiment = database.experiment(inputs["experiment_id"])
    return _known(experiment, inputs["experiment_id"])


def _known(experiment: Experiment | None, id: str) -> Experiment:
    """DatabaseError if the row is missing, as after the database was set back to an earlier copy."""
    if experiment is None:
        raise DatabaseError(f"Experiment {id} has no row in the database.", "Run `ems up` again: it registers it.")
    return experiment


def _attend(operation: Operation, experiment: Experiment) -> Experiment:
    """Have the place run the experiment, and show its progress until it is finished, detached or cancelled."""
    place = clusters.of(operation.lab, experiment)
    pauses, patience, is_news = Backoff(FIRST_POLL_S, _look_s(operation)), Patience(operation.note), True
    while not experiment.state.finished and operation.listening():
        if operation.cancelled.is_set():
            return _interrupt(operation, experiment, place)
        if is_news and (said := place.ensure_running(operation.lab, experiment)):
            operation.note(said)
        if operation.detach and (experiment.state is State.RUNNING or not place.starts_runs):
            way_on = f"; {GOES_ON}" if place.starts_runs else ""
            operation.telling.conclude(f"{progress_line(experiment)}{way_on}", failed=False)
            return experiment
        operation.telling.look(experiment)
        operation.cancelled.wait(pauses.pause_s())
        found = _asked(operation, experiment.id, patience)
        experiment, is_news = found or experiment, found is not None
    _conclude(operation, experiment)
    return experiment


def _look_s(operation: Operation) -> float:
    with operation.database() as database:
        return look_s(database, POLL_S)


def _asked(operation: Operation, experiment_id: str, patience: Patience, *, cancel: bool = False) -> Experiment | None:
    """The row as it is now, with `cancel` after a request to cancel it; None while the database is away."""
    try:
        with operation.database() as database:
            ask = database.request_cancel if cancel else database.experiment
            now = _known(ask(experiment_id), experiment_id)
    except DatabaseUnavailable as error:
        patience.away(error)
        operation.say(f"the database is away, trying on: {error.message}")
        return None
    patience.back()
    return now


def _conclude(operation: Operation, experiment: Experiment) -> None:
    if experiment.state is State.SUCCEEDED:
        lines = [progress_line(experiment), *filter(None, [experiment.log_tail])]
        operation.telling.conclude("\n".join(lines), failed=False)
    elif experiment.state.finished:
        operation.telling.conclude("\n".join(_why(experiment)), failed=True)


def _why(experiment: Experiment) -> list[str]:
    """How it ended, why, and the log's last lines: what is said first is seen where the engine cuts a message off."""
    lines = experiment.log_tail.splitlines()
    while lines and len("\n".join(lines)) > TAIL_CHARACTERS:
        lines.pop(0)
    return [progress_line(experiment), *filter(None, [experiment.error]), *lines]


def _interrupt(operation: Operation, experiment: Experiment, place: clusters.Place) -> Experiment:
    if not place.stops_with_its_command(operation.lab, experiment):
        operation.note("detached: the run goes on; `ems stop` ends it")
        return experiment
    return _stop(operation, experiment, place)


def _stop(operation: Operation, experiment: Experiment, place: clusters.Place) -> Experiment:
    operation.say("stopping; what was computed is being stored")
    with operation.database() as database:
        within_s, pause_s = stop_s(database), look_s(database, POLL_S)
    patience, deadline = Patience(operation.note), time.monotonic() + within_s
    while not experiment.state.finished and time.monotonic() < deadline:
        # Once more each time: of a run without a living agent, the cancellation counts from the end of its lease.
        experiment = _asked(operation, experiment.id, patience, cancel=True) or experiment
        place.nudge(operation.lab, experiment)
        operation.telling.look(experiment)
        time.sleep(0 if experiment.state.finished else pause_s)
    if not experiment.state.finished:
        raise EmsError(f"The run did not stop within {within_s:.0f} s.", "Look at `ems logs`, then repeat the command.")
    operation.telling.conclude(progress_line(experiment), failed=False)
    return experiment


def _outputs(experiment: Experiment) -> Properties:
    return {
        "state": str(experiment.state),
        "points_done": experiment.points_done,
        "points_failed": experiment.points_failed,
        "rows": experiment.rows_stored,
        "error": experiment.error,
    }
