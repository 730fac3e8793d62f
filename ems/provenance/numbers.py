"""How people wrote the numbers of a job: a function that is given 2.0 may compute something else than with 2.

Pulumi does not tell them apart: its JSON has 2.0 as 2 and, where it writes a stack file anew to add keys of its own, so
has the file. So numbers are read from the last commit, or from the one before if it was the last that brought the keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ems.base.errors import ProvenanceError, StackFileError
from ems.lab import repository
from ems.lab.repository import WorkTree
from ems.stack import sweep_forms, yamlfile
from ems.stack.fields import as_hashed
from ems.stack.models import AnyJob, CommandJob, ExperimentSpec, SweepJob
from ems.stack.schema import WRITTEN_BY_PULUMI


def as_written(lab: WorkTree, stack_file: Path, experiment: ExperimentSpec) -> ExperimentSpec:
    """The spec, whose stack file is as it is committed, with the numbers of its job as people wrote them.

    ProvenanceError if the file has got points (2 is 2.0 now) that are not committed.
    """
    path = lab.below_top(stack_file.resolve())
    versions = [_content(lab, version.blob, path) for version in repository.versions(lab, path)]
    jobs = [found for found in _jobs(experiment, versions) if hashed(found) == hashed(experiment.job)]
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


def _content(lab: WorkTree, blob: str, path: str) -> dict[str, Any]:
    """What a version of the stack file says; nothing if it is none that Pulumi reads."""
    try:
        content, _ = yamlfile.parse(lab.objects().read(blob) if blob else b"", Path(path))
    except StackFileError:
        return {}
    return content if isinstance(content, dict) else {}


def _jobs(experiment: ExperimentSpec, versions: list[dict[str, Any]]) -> Iterator[Any]:
    """The job in the newest version and, if that brought keys of Pulumi's, in the one before."""
    for newer, version in zip([{}, *versions], versions, strict=False):
        if newer and newer.keys() & WRITTEN_BY_PULUMI.keys() <= version.keys():
            return
        try:
            yield type(experiment.job).model_validate(version["config"]["ems:experiment"]["job"])
        except (KeyError, TypeError, ValueError):
            return


def _points(value: object) -> int:
    """How many numbers are written with a point."""
    if isinstance(value, dict | list | tuple):
        return sum(map(_points, value.values() if isinstance(value, dict) else value))
    return int(isinstance(value, float))
