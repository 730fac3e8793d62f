"""Everything about a stack that can be known to be wrong before anything is created."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ems import environment, stackfile
from ems.databases import Registration
from ems.errors import EmsError, StackFileError, UserError
from ems.lab import Lab
from ems.registration import registration
from ems.spec import ClusterSpec, ExperimentSpec, LabSpec, Spec

RANKS = (LabSpec, ClusterSpec, ExperimentSpec)


@dataclass(frozen=True)
class Report:
    """What `ems check` says of one stack. `exit_code`: that of the first problem's error, 0 without one."""

    stack: str
    summary: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0

    def as_object(self) -> dict[str, Any]:
        return asdict(self)


def report(lab: Lab, stack: str) -> Report:
    try:
        described = stackfile.load(lab.stack_file(stack))
    except EmsError as error:
        return Report(stack, "", _lines(error), exit_code=error.exit_code)
    if not isinstance(described, ExperimentSpec):
        return Report(stack, type(described).__name__.removesuffix("Spec").lower())
    errors = list(_reference_errors(lab, stack, described))
    try:
        row = registration(lab, stack, described, _kind(lab, described))
        summary, warnings = f"experiment {row.id}", _warnings(lab, described)
    except EmsError as error:
        errors, summary, warnings = [*errors, error], "experiment", ()
    problems = tuple(line for error in errors for line in _lines(error))
    return Report(stack, summary, problems, warnings, errors[0].exit_code if errors else 0)


def require(lab: Lab, stack: str) -> Registration | None:
    """What `ems up` would register; None for a stack that is no experiment. Raises the first error."""
    described = stackfile.load(lab.stack_file(stack))
    if not isinstance(described, ExperimentSpec):
        return None
    for error in _reference_errors(lab, stack, described):
        raise error
    return registration(lab, stack, described, _kind(lab, described))


def rank(lab: Lab, stack: str) -> int:
    """0 for the lab, 1 for a place, 2 for an experiment."""
    return RANKS.index(type(stackfile.load(lab.stack_file(stack))))


def _reference_errors(lab: Lab, stack: str, described: ExperimentSpec) -> list[EmsError]:
    """References are looked up in the lab's stack file: what it says is what `ems up` of it will register."""
    laboratory = _lab_spec(lab)
    faults = stackfile.references(described, laboratory) if laboratory else []
    return [StackFileError(stackfile.locate(faults, lab.stack_file(stack)))] if faults else []


def _lab_spec(lab: Lab) -> LabSpec | None:
    for stack in lab.stacks():
        described = _loaded(lab.stack_file(stack))
        if isinstance(described, LabSpec):
            return described
    return None


def _loaded(path: Path) -> Spec | None:
    try:
        return stackfile.load(path)
    except StackFileError:
        return None  # another stack's faults are told when it is checked itself


def _kind(lab: Lab, described: ExperimentSpec) -> str:
    if described.cluster.kind:
        return described.cluster.kind
    place = _loaded(lab.stack_file(str(described.cluster.stack)))
    if not isinstance(place, ClusterSpec):
        raise UserError(
            f"cluster.stack is {described.cluster.stack!r}: no stack file of that name describes an `ems:cluster`."
        )
    return place.kind


def _warnings(lab: Lab, described: ExperimentSpec) -> tuple[str, ...]:
    pinned = environment.from_folder(environment.folder(lab.root, described.environment))
    return tuple(str(warning) for warning in environment.check(pinned).warnings)


def _lines(error: EmsError) -> tuple[str, ...]:
    return tuple(str(error).splitlines())
