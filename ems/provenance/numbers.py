"""How people wrote the numbers of a job: a function that is given 2.0 may compute something else than with 2.

Pulumi does not tell them apart: its JSON has 2.0 as 2 and, where it writes a stack file anew to add keys of its own, so
has the file. So numbers are read from the last commit, or from the one before if it was the last that brought the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems.base.errors import ProvenanceError, StackFileError
from ems.lab import repository
from ems.lab.repository import WorkTree
from ems.stack import sweep_forms, yamlfile
from ems.stack.fields import as_hashed
from ems.stack.keys import Location
from ems.stack.models import AnyJob, CommandJob, ExperimentSpec, SweepJob
from ems.stack.schema import WRITTEN_BY_PULUMI

COMMAND: Location = ("config", "ems:experiment", "job", "command")


def as_written(lab: WorkTree, stack_file: Path, experiment: ExperimentSpec) -> ExperimentSpec:
    """The spec, whose stack file is as it is committed, with the numbers of its job as people wrote them.

    ProvenanceError if the file has got points (2 is 2.0 now) that are not committed.
    """
    path = lab.below_top(stack_file.resolve())
    versions = [_content(lab, version.blob, path) for version in repository.versions(lab, path)]
    found = list(_jobs(experiment, versions))
    experiment = experiment.model_copy(update={"job": _worded(experiment.job, found)})
    jobs = [each.job for each in found if hashed(each.job) == hashed(experiment.job)]
    if not jobs:
        return experiment
    if _points(experiment.job.model_dump()) > _points(jobs[-1].model_dump()):
        raise ProvenanceError(
            f"{path} has numbers with a point that the last commit has without: they are of another type.",
            f"git add -- :/{path} && git commit",
        )
    return experiment.model_copy(update={"job": _numbered(experiment.job, jobs[-1])})


def hashed(job: AnyJob) -> Any:
    """A sweep's grids and a command's parameters as ids are computed from them: 2.0 as 2."""
    if isinstance(job, CommandJob):
        return hashed_values(job.parameters)
    grids = sweep_forms.hashed(job.sweep)
    return grids if isinstance(job, SweepJob) else (grids, hashed_values(job.parameters))


def hashed_values(parameters: Mapping[str, object]) -> dict[str, object]:
    """Parameters of a command as ids are computed from them."""
    return {name: _hashed(value) for name, value in parameters.items()}


def _hashed(value: object) -> object:
    if isinstance(value, list):
        return [_hashed(item) for item in value]
    return as_hashed(value)


def _numbered(job: AnyJob, written: AnyJob) -> AnyJob:
    """The job with the numbers of another version."""
    names = [name for name in ("sweep", "parameters") if name in type(job).model_fields]
    return job.model_copy(update={name: getattr(written, name) for name in names})


def _worded(job: AnyJob, found: Sequence[_Written]) -> AnyJob:
    """A command with the numbers among its words as they are written: a program may tell 0.10 from 0.1."""
    if isinstance(job, SweepJob):
        return job
    words = [each.words for each in found if getattr(each.job, "command", None) == job.command]
    return job.model_copy(update={"command": words[-1]}) if words else job


@dataclass(frozen=True)
class _Version:
    """What a version of the stack file says, and the numbers in it as text."""

    content: Mapping[str, Any]
    numbers: Mapping[Location, str]


@dataclass(frozen=True)
class _Written:
    """A job as a version of the stack file has it; `words`: those of its command, the numbers as they are written."""

    job: Any
    words: tuple[str, ...]


def _content(lab: WorkTree, blob: str, path: str) -> _Version:
    """What a version of the stack file says; nothing if it is none that Pulumi reads."""
    try:
        content, numbers = yamlfile.parse_numbers(lab.objects().read(blob) if blob else b"", Path(path))
    except StackFileError:
        return _Version({}, {})
    return _Version(content if isinstance(content, dict) else {}, numbers)


def _jobs(experiment: ExperimentSpec, versions: Sequence[_Version]) -> Iterator[_Written]:
    """The job in the newest version and, if that brought keys of Pulumi's, in the one before."""
    newer: Mapping[str, Any] = {}
    for version in versions:
        if newer and newer.keys() & WRITTEN_BY_PULUMI.keys() <= version.content.keys():
            return
        newer = version.content
        try:
            job = type(experiment.job).model_validate(newer["config"]["ems:experiment"]["job"])
        except (KeyError, TypeError, ValueError):
            return
        yield _Written(job, _words(job, version.numbers))


def _words(job: AnyJob, numbers: Mapping[Location, str]) -> tuple[str, ...]:
    if isinstance(job, SweepJob):
        return ()
    return tuple(numbers.get((*COMMAND, place), word) for place, word in enumerate(job.command))


def _points(value: object) -> int:
    """How many numbers are written with a point."""
    if isinstance(value, dict | list | tuple):
        return sum(map(_points, value.values() if isinstance(value, dict) else value))
    return int(isinstance(value, float))
