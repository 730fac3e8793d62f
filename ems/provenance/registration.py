"""From a stack file to the row of its experiment: which code, which environment, hence which identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ems.databases import Registration
from ems.lab import Lab
from ems.provenance import code as provenance
from ems.provenance import environment, identity, inputs
from ems.provenance.code import Code
from ems.provenance.environment import Environment
from ems.stack import spec
from ems.stack.models import CommandJob, ExperimentSpec, SweepJob
from ems.sweep import Sweep


def registration(lab: Lab, stack: str, experiment: ExperimentSpec, kind: str, *, remote_needed: bool) -> Registration:
    """The row that `stack` describes, to run at a place of this `kind`.

    With `remote_needed` the commit must be on a remote.

    ProvenanceError if its code, environment or stack file is not in a state that can be reproduced; StackFileError if
    an input is another file than its digest names. Whether it is there counts only where it is to run.
    """
    stack_file = lab.stack_file(stack)
    code = provenance.resolve(
        lab.root,
        experiment.code,
        environment=experiment.environment,
        stack_file=stack_file,
        remote_needed=remote_needed,
    )
    built = environment.of(lab.root, code, experiment.environment)
    environment.refuse(built)
    inputs.refuse(lab.root, experiment, needed=False)
    file_commit = provenance.stack_file_commit(lab.root, stack_file)
    return _row(lab, stack, experiment, kind, code, built, file_commit)


def _row(
    lab: Lab, stack: str, experiment: ExperimentSpec, kind: str, code: Code, built: Environment, file_commit: str
) -> Registration:
    job = _job(experiment.job)
    digest = _digest(job, code, built, experiment)
    return Registration(
        id=identity.experiment_id(lab.id, stack, digest),
        stack=stack,
        digest=digest,
        experimenter=experiment.experimenter,
        project=experiment.project,
        funding=experiment.funding,
        spec=spec.to_json(experiment),
        repository=code.repository,
        commit=code.commit,
        tree=code.tree,
        stack_file_commit=file_commit,
        environment=built.name,
        environment_digest=built.digest,
        python=built.python,
        cluster=experiment.cluster.stack or kind,
        results_table=experiment.results.table,
        points_total=job.points,
        job_digest=_job_digest(job, experiment),
        max_hours=experiment.limits.max_hours,
        limit_usd=experiment.limits.limit_usd,
        attempt=experiment.attempt,
    )


@dataclass(frozen=True)
class _Job:
    """What decides a job's results: a sweep's grids apart from the rest, and no retries, limits and memory."""

    described: Mapping[str, Any]
    grids: Mapping[str, Any] = field(default_factory=dict)
    points: int = 1


def _job(job: CommandJob | SweepJob) -> _Job:
    if isinstance(job, CommandJob):
        return _Job(job.model_dump(mode="json"))
    sweep = Sweep.of(job.sweep)
    return _Job({"function": job.function, "threads": job.threads}, {"grids": sweep.identity()}, len(sweep))


def _digest(job: _Job, code: Code, built: Environment, experiment: ExperimentSpec) -> str:
    return identity.digest(
        tree=code.tree,
        job={**job.described, **job.grids},
        environment=built.digest,
        python=built.python,
        inputs=inputs.content(experiment),
        env=experiment.env,
        columns=experiment.results.columns,
    )


def _job_digest(job: _Job, experiment: ExperimentSpec) -> str:
    """Of what a point's rows depend on beside its parameters, the code and the environment; a command has no points."""
    if not job.grids:
        return ""
    return identity.job_digest(job=job.described, inputs=inputs.content(experiment), env=experiment.env)
