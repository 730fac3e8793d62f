"""The Pulumi program of every stack: config → spec → row, cluster, run."""

from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from ems import clusters
from ems import lab as laboratory
from ems.base import plugins
from ems.base.errors import Busy, EmsError, Fault, StackFileError
from ems.base.messages import Say, counted
from ems.clusters import place
from ems.databases import ClusterRow, Project, Record, Registration, State
from ems.engine.provider.records import from_properties, to_properties
from ems.engine.provider.tokens import EXPERIMENT, RUN, row_token, token
from ems.lab import Lab
from ems.lab.described import rows_of
from ems.lab.repository import opened
from ems.lab.stacks import locating
from ems.provenance import inputs
from ems.provenance.registration import Expected, resolve, shared_points
from ems.stack import spec
from ems.stack.models import KINDS, ClusterSpec, ExperimentSpec, LabSpec


class Declared(pulumi.CustomResource):
    """A resource of EMS's own provider; the program reads back the state of a run, and what was `found` of a place."""

    state: pulumi.Output[str]
    found: pulumi.Output[str]

    def __init__(
        self, token: str, name: str, inputs: Mapping[str, Any], depends_on: Sequence[pulumi.Resource] = ()
    ) -> None:
        options = pulumi.ResourceOptions(depends_on=list(depends_on))
        super().__init__(token, name, {**inputs, "state": None, "found": None}, options)


def main() -> None:
    """Declare what the current stack's file describes; a user's mistake ends the program without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine ends the program; a Ctrl-C would add Python's traceback
    try:
        declare(laboratory.find(), pulumi.get_stack(), pulumi.info)
    except EmsError as error:
        raise pulumi.RunError(str(error)) from None


def declare(lab: Lab, stack: str, note: Say, expected: Expected | None = None) -> None:
    """Declare what a stack's file describes; `note` hears remarks. EmsError for what a person can fix.

    `expected`: what this command has found out before, which holds if the file has not been changed since.
    """
    with locating(lab, stack):
        _declare(lab, stack, note, expected)


def _declare(lab: Lab, stack: str, note: Say, expected: Expected | None) -> None:
    config = pulumi.Config("ems")
    given = {kind: text for kind in KINDS if (text := config.get(kind)) is not None}
    if len(given) != 1:
        fault = Fault("config", f"needs exactly one of {', '.join('ems:' + k for k in KINDS)}")
        raise StackFileError([fault])
    ((kind, text),) = given.items()
    match spec.parse(kind, json.loads(text), clusters.settings()):
        case LabSpec() as described:
            _rows(rows_of(stack, described))
        case ClusterSpec() as described:
            _persistent_place(lab, stack, described)
        case ExperimentSpec() as described:
            _experiment(lab, stack, described, note, expected)


def _rows(records: Sequence[Record]) -> None:
    """A project comes after that which it is a part of."""
    projects: dict[str | None, Declared] = {}
    for record in records:
        above = projects.get(record.parent) if isinstance(record, Project) else None
        declared = Declared(row_token(type(record)), record.id, to_properties(record), [above] if above else [])
        if isinstance(record, Project):
            projects[record.id] = declared


def _persistent_place(lab: Lab, stack: str, described: ClusterSpec) -> None:
    """What it is made of, and then its row, which says what that is called."""
    (row,) = rows_of(stack, described)
    assert isinstance(row, ClusterRow)
    settings, made = place(described.kind).establish(lab, stack, json.loads(row.settings))
    said = pulumi.Output.json_dumps(settings, sort_keys=True) if made else row.settings
    declared = Declared(row_token(ClusterRow), row.id, {**to_properties(row), "settings": said}, made)
    pulumi.export("found", declared.found.apply(json.loads))


def _experiment(lab: Lab, stack: str, described: ExperimentSpec, note: Say, expected: Expected | None) -> None:
    """Its row, its run and, while the run is due, the place it runs at."""
    kind, reach = (described.cluster.kind, None) if described.cluster.kind else _persistent(described.cluster.stack)
    is_expected = expected is not None and expected.is_of(described)
    described = spec.at(described, kind, clusters.settings())
    row = expected.row if expected and is_expected else _row(lab, stack, described, kind, reach)
    if expected and not is_expected:  # the file has been changed since: what was asked for was a pilot nevertheless
        row = dataclasses.replace(row, pilot=expected.row.pilot)
    plan = _invoke("plan", to_properties(row))
    if plan["due"]:
        inputs.refuse(lab.root, described)
    _refuse_missing(json.loads(plan["missing"]))
    if plan["new"] and (shared := shared_points(described, row)):
        note(f"several grids of the sweep have {counted(shared, 'point')} in common: computed once")
    if reused := int(plan["reused"]):
        note(f"reuses {counted(reused, 'point')} of earlier experiments, computes {row.points_total - reused:,}")
    _resources(row, kind, attempt=int(plan["attempt"]), due=plan["due"])


def _row(lab: Lab, stack: str, described: ExperimentSpec, kind: str, reach: str | None) -> Registration:
    with opened(lab.root) as tree:
        needed = clusters.attending(kind, reach).needs_remote
        return resolve(lab, tree, stack, described, kind, remote_needed=needed, is_known=_is_known).row


def _is_known(experiment_id: str) -> bool:
    return bool(_invoke("known", {"experiment_id": experiment_id})["known"])


def declare_finished(stack: str, experiment_id: str) -> None:
    """A finished experiment as it is recorded, whatever the working tree says, and whether it has the stack's file.

    EmsError for what a person can fix.
    """
    row = from_properties(Registration, _invoke("recorded", {"experiment_id": experiment_id}))
    plan = _invoke("plan", to_properties(row))
    if plan["due"]:
        raise Busy(
            f"Experiment {row.id} is not finished: its cluster cannot be released.", f"Stop it: ems stop {stack}"
        )
    kind = row.cluster if row.cluster in plugins.names("clusters") else _persistent(row.cluster)[0]
    _resources(row, kind, attempt=int(plan["attempt"]), due=False)


def _persistent(stack: str | None) -> tuple[str, str | None]:
    """The kind of a persistent place, and how runs get there."""
    found = _invoke("place", {"stack": stack})
    return found["kind"], found["reach"] or None


def _settings(row: Registration, kind: str) -> Mapping[str, Any]:
    """Of the persistent place that the experiment names; {} if it names none."""
    found: dict[str, Any] = (
        {} if row.cluster == kind else json.loads(_invoke("place", {"stack": row.cluster})["settings"])
    )
    return found


def _resources(row: Registration, kind: str, *, attempt: int, due: bool) -> None:
    short = row.id[:8]
    needed: list[pulumi.Resource] = [Declared(EXPERIMENT, f"experiment-{short}", to_properties(row))]
    if due:
        ready = {"experiment_id": row.id, "environment": row.environment, "python": row.python, "commit": row.commit}
        needed += place(kind).declare(row, _settings(row, kind), needed)
        needed.append(Declared(token(kind), f"cluster-{short}", ready, needed))
    identified = {
        "experiment_id": row.id,
        "digest": row.digest,
        "due": due,
        "attempt": attempt,
        "cluster": kind,
        "commit": row.commit,
        "environment": row.environment,
        "points": row.points_total,
    }
    run = Declared(RUN, "run", identified, needed)
    state = run.state.apply(_fail_once) if due else run.state
    pulumi.export("experiment", row.id)
    pulumi.export("state", state)


def _fail_once(state: str) -> str:
    """End the update in which a run failed with an error; the next one only lets the cluster go."""
    if state in {State.FAILED, State.CANCELLED, State.EXPIRED}:
        raise pulumi.RunError(f"the experiment ended {state}: see `ems status` and `ems logs`")
    return state


def _refuse_missing(missing: list[tuple[str, str, list[str]]]) -> None:
    faults = [
        Fault(
            f"ems:experiment.{table}", f"{id!r} is not in the lab's database: allowed {', '.join(there) or 'none yet'}"
        )
        for table, id, there in missing
    ]
    if faults:
        raise StackFileError(faults)


def _invoke(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    answer = dict(pulumi.runtime.invoke(f"ems:index:{name}", dict(arguments)).value)
    if "error" in answer:
        raise EmsError(answer["error"], answer["hint"])
    return answer
