"""Everything about a stack that can be known to be wrong before anything is created."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ems.clusters import place
from ems.databases import Registration
from ems.errors import EmsError, Fault, StackFileError
from ems.lab import Lab
from ems.messages import nearest, show
from ems.provenance import environment, inputs
from ems.provenance.registration import registration
from ems.stack import stackfile
from ems.stack.spec import ClusterSpec, ExperimentSpec, LabSpec, Spec

RANKS = (LabSpec, ClusterSpec, ExperimentSpec)
T = TypeVar("T")


@dataclass(frozen=True)
class Report:
    """What `ems check` says of one stack. `exit_code`: the greatest of its problems' errors, 0 without one."""

    stack: str
    summary: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0


def report(lab: Lab, stack: str) -> Report:
    """All that is wrong with one stack; changes nothing."""
    try:
        described = stackfile.load(lab.stack_file(stack))
    except EmsError as error:
        return Report(stack, "", _lines([error]), exit_code=error.exit_code)
    errors: list[EmsError] = []
    _noting(errors, lab.plugin)
    warnings: tuple[str, ...] = ()
    summary = type(described).__name__.removesuffix("Spec").lower()
    if isinstance(described, ExperimentSpec):
        errors += _reference_errors(lab, stack, described)
        kind = _noting(errors, lambda: _kind(lab, stack, described)) or "laptop"
        row = _noting(errors, lambda: _registration(lab, stack, described, kind))
        errors += _input_errors(lab, stack, described, row)
        warnings = _environment(lab, described, errors)
        summary += f" {row.id}" if row else ""
    return Report(stack, summary, _lines(errors), warnings, max((error.exit_code for error in errors), default=0))


def _input_errors(lab: Lab, stack: str, described: ExperimentSpec, row: Registration | None) -> list[EmsError]:
    """Only where something is wrong with them the database is asked whether they are needed, if it answers."""
    errors: list[EmsError] = []
    _noting(errors, lambda: require_inputs(lab, stack))
    if errors and row and _is_finished(lab, row.id):
        errors.clear()
        _noting(errors, lambda: inputs.refuse(lab.root, described, lab.stack_file(stack), needed=False))
    return errors


def _is_finished(lab: Lab, experiment_id: str) -> bool:
    with lab.database() as database:
        experiment = _noting([], lambda: database.experiment(experiment_id))
    return experiment is not None and experiment.state.finished


def _noting(errors: list[EmsError], step: Callable[[], T]) -> T | None:
    try:
        return step()
    except EmsError as error:
        errors.append(error)
        return None


def require(lab: Lab, stack: str) -> Registration | None:
    """What `ems up` would register; None for a stack that is no experiment. Raises the first error.

    Whether inputs are there is asked by `require_inputs`: one that is finished needs none.
    """
    lab.plugin()
    described = stackfile.load(lab.stack_file(stack))
    if not isinstance(described, ExperimentSpec):
        return None
    for error in _reference_errors(lab, stack, described):
        raise error
    return _registration(lab, stack, described, _kind(lab, stack, described))


def _registration(lab: Lab, stack: str, described: ExperimentSpec, kind: str) -> Registration:
    return registration(lab, stack, described, kind, remote_needed=place(kind).needs_remote)


def require_inputs(lab: Lab, stack: str) -> None:
    """StackFileError if an input on this machine is not there: for an experiment that is to run."""
    described = stackfile.load(lab.stack_file(stack))
    if isinstance(described, ExperimentSpec):
        inputs.refuse(lab.root, described, lab.stack_file(stack))


def rank(lab: Lab, stack: str) -> int:
    """0 for the lab, 1 for a place, 2 for an experiment."""
    return RANKS.index(type(stackfile.load(lab.stack_file(stack))))


def _reference_errors(lab: Lab, stack: str, described: ExperimentSpec) -> list[EmsError]:
    """References are looked up in the lab's stack file: what it says is what `ems up` of it will register."""
    laboratory = _lab_spec(lab)
    faults = stackfile.references(described, laboratory) if laboratory else []
    return [StackFileError(stackfile.locate(faults, lab.stack_file(stack)))] if faults else []


def _lab_spec(lab: Lab) -> LabSpec | None:
    for stack in sorted(lab.stacks(), key=lambda name: name != "lab"):
        described = _loaded(lab.stack_file(stack))
        if isinstance(described, LabSpec):
            return described
    return None


def _loaded(path: Path) -> Spec | None:
    try:
        return stackfile.load(path)
    except StackFileError:
        return None  # another stack's faults are told when it is checked itself


def _kind(lab: Lab, stack: str, described: ExperimentSpec) -> str:
    """The kind of place that the experiment runs at; StackFileError if it names a stack that is no place."""
    if described.cluster.kind:
        return described.cluster.kind
    name = str(described.cluster.stack)
    place = _loaded(lab.stack_file(name))
    if isinstance(place, ClusterSpec):
        return place.kind
    places = [other for other in lab.stacks() if isinstance(_loaded(lab.stack_file(other)), ClusterSpec)]
    problem = f"is {show(name)}, which no stack file describes as an `ems:cluster`: {nearest(name, places)}"
    raise StackFileError(stackfile.locate([Fault("ems:experiment.cluster.stack", problem)], lab.stack_file(stack)))


def _environment(lab: Lab, described: ExperimentSpec, errors: list[EmsError]) -> tuple[str, ...]:
    """Warnings about the environment as it is in the working tree; of an older `commit:` none."""
    if described.code.commit != "HEAD" or not (lab.root / "environments" / described.environment).is_dir():
        return ()
    pinned = _noting(errors, lambda: environment.from_folder(environment.folder(lab.root, described.environment)))
    if pinned is None:
        return ()
    _noting(errors, lambda: environment.refuse(pinned))
    return environment.check(pinned).warnings


def _lines(errors: Sequence[EmsError]) -> tuple[str, ...]:
    """Each once: the commit and the working tree may have the same fault."""
    return tuple(dict.fromkeys(line for error in errors for line in str(error).splitlines()))
