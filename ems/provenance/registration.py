"""From a stack file to the row of its experiment: which code, which environment, hence which identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ems.databases import Registration, rounds
from ems.lab import Lab
from ems.lab.repository import WorkTree
from ems.provenance import code as provenance
from ems.provenance import environment, identity, inputs, numbers, pins
from ems.provenance.code import Code
from ems.provenance.environment import Environment
from ems.stack import spec, sweep_choice, sweep_forms
from ems.stack.models import AnyJob, CommandJob, CommandSweepJob, ExperimentSpec, SweepJob
from ems.stack.scalars import rewritten
from ems.sweep import Sweep, exclusion


class Resolved(NamedTuple):
    """The row that a stack describes, and the code and the environment that it stands for."""

    row: Registration
    code: Code
    environment: Environment


def resolve(
    lab: Lab,
    tree: WorkTree,
    stack: str,
    experiment: ExperimentSpec,
    kind: str,
    *,
    remote_needed: bool,
    is_known: Callable[[str], bool] = lambda _id: False,
) -> Resolved:
    """The row that `stack` describes, to run at a place of this `kind`. `tree`: what git says of the lab.

    With `remote_needed` the commit must be on a remote. `is_known`: whether an experiment of this id is registered; it
    is asked only of code without declared paths, whose default was another one before: what was registered then, and
    has not changed since, stays the same experiment.

    ProvenanceError if its code, environment or stack file is not in a state that can be reproduced; StackFileError if
    an input is another file than its digest names. Whether it is there counts only where it is to run.
    """
    stack_file = lab.stack_file(stack)
    code = provenance.resolve(
        tree,
        experiment.code,
        environment=environment.sources(experiment.environment),
        stack_file=stack_file,
        remote_needed=remote_needed,
    )
    built = environment.of(tree, code, experiment.environment)
    pins.refuse(built)
    inputs.refuse(lab.root, experiment, needed=False)
    file_commit = provenance.stack_file_commit(tree, stack_file)
    experiment = numbers.as_written(tree, stack_file, experiment)
    now = Resolved(_row(lab, stack, experiment, kind, code, built, file_commit), code, built)
    if experiment.code.paths or is_known(now.row.id):
        return now
    before = provenance.as_before(tree, experiment.code, code)
    earlier = Resolved(_row(lab, stack, experiment, kind, before, built, file_commit), before, built)
    return earlier if is_known(earlier.row.id) else now


class Expected(NamedTuple):
    """What a stack file was found to say, and the row that it stands for."""

    described: ExperimentSpec
    row: Registration

    def is_of(self, described: ExperimentSpec) -> bool:
        """Whether this is what the file still says, as Pulumi hands it over: 2.0 may be 2 now."""
        mine, other = (rewritten(each.model_dump(mode="json")) for each in (self.described, described))
        return mine == other


def _row(
    lab: Lab, stack: str, experiment: ExperimentSpec, kind: str, code: Code, built: Environment, file_commit: str
) -> Registration:
    job = _job(experiment.job)
    recorded = experiment.model_copy(update={"job": job.recorded})
    digest = _digest(job, code, built, experiment)
    return Registration(
        id=identity.experiment_id(lab.id, stack, digest),
        stack=stack,
        digest=digest,
        experimenter=experiment.experimenter,
        project=experiment.project,
        funding=experiment.funding,
        spec=spec.to_json(recorded),
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


def shared_points(experiment: ExperimentSpec, row: Registration) -> int:
    """How many points of a stack file's grids are those of other ones above, which its new experiment has once."""
    job = experiment.job
    if isinstance(job, CommandJob):
        return 0
    return len(Sweep.of(job.sweep)) - len(Sweep.of(rounds.first_grids(row)))


@dataclass(frozen=True)
class _Job:
    """What decides a job's results: a sweep's grids, and what proposes more, apart from the rest.

    No retries, limits and memory.

    `recorded`: the job as the experiment computes it.
    """

    recorded: AnyJob
    described: Mapping[str, Any]
    grids: Mapping[str, Any] = field(default_factory=dict)
    points: int = 1


def _job(job: AnyJob) -> _Job:
    if isinstance(job, CommandJob):
        return _Job(job, {**job.model_dump(mode="json"), "parameters": numbers.hashed_values(job.parameters)})
    sweep = Sweep.of(sweep_forms.hashed(job.sweep))
    proposing = {"propose": job.propose} if job.propose else {}
    left_out = {"exclude": exclusion.identity(sweep, job.exclude)} if job.exclude else {}
    recorded = job.model_copy(update={"sweep": sweep_forms.recorded(job.sweep)})
    points = sweep_choice.kept(recorded.model_dump(mode="json"))
    return _Job(recorded, _described(job), {"grids": sweep.identity(), **proposing, **left_out}, points)


def _described(job: SweepJob | CommandSweepJob) -> Mapping[str, Any]:
    """What computes the points of a sweep."""
    if isinstance(job, SweepJob):
        return {"function": job.function, "threads": job.threads, **({"setup": job.setup} if job.setup else {})}
    parameters = numbers.hashed_values(job.parameters)
    return {"command": [*job.command], "parameters": parameters, "protocol": job.protocol, "threads": job.threads}


def _digest(job: _Job, code: Code, built: Environment, experiment: ExperimentSpec) -> str:
    return identity.digest(
        tree=code.tree,
        job={**job.described, **job.grids},
        environment=built.digest,
        python=built.python,
        inputs=inputs.content(experiment),
        env=experiment.env,
        columns=experiment.results.types,
        results=experiment.results.reading,
    )


def _job_digest(job: _Job, experiment: ExperimentSpec) -> str:
    """Of what a point's rows depend on beside its parameters, the code and the environment; a command has no points."""
    if not job.grids:
        return ""
    return identity.job_digest(
        job=job.described,
        inputs=inputs.content(experiment),
        env=experiment.env,
        columns=experiment.results.types,
        results=experiment.results.reading,
    )
