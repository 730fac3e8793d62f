"""From a stack file to the row of its experiment: which code, which environment, hence which identity."""

from __future__ import annotations

from ems import environment, identity, provenance, spec
from ems.clusters import place
from ems.databases import Registration
from ems.lab import Lab
from ems.spec import ExperimentSpec


def registration(lab: Lab, stack: str, experiment: ExperimentSpec, kind: str) -> Registration:
    """The row that `stack` describes, to run at a place of this `kind`.

    ProvenanceError if its code, environment or stack file is not in a state that can be reproduced.
    """
    stack_file = lab.stack_file(stack)
    code = provenance.resolve(
        lab.root,
        experiment.code,
        environment=experiment.environment,
        stack_file=stack_file,
        remote_needed=place(kind).needs_remote,
    )
    built = environment.of(lab.root, code, experiment.environment)
    digest = identity.digest(
        tree=code.tree,
        job=experiment.job.model_dump(mode="json"),
        environment=built.digest,
        python=built.python,
        inputs={},
        env=experiment.env,
    )
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
        stack_file_commit=provenance.stack_file_commit(lab.root, stack_file),
        environment=built.name,
        environment_digest=built.digest,
        python=built.python,
        cluster=experiment.cluster.stack or kind,
        results_table=experiment.results.table,
        points_total=1,
        max_hours=experiment.limits.max_hours,
        limit_usd=experiment.limits.limit_usd,
        attempt=experiment.attempt,
    )
