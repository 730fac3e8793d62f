"""The machine that `ems up` runs on: environments are built in the user's cache, the agent is a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ems.clusters import Place
from ems.databases import Experiment, Registration, State
from ems.engine.provider.resource import Operation, Properties, Resource
from ems.errors import EmsError, ProvenanceError
from ems.lab import Lab
from ems.messages import Say, quiet
from ems.node.agent.config import AgentConfig
from ems.node.agent.inputs import remove_inputs
from ems.node.agent.lock import agent_name
from ems.node.job.keeper import is_locked
from ems.provenance import bundle, environment, inputs
from ems.provenance import code as provenance
from ems.stack import spec
from ems.stack.spec import ExperimentSpec

MOST_STARTS = 5  # of an agent that does not live, before its error is a person's to mend


class LaptopResource(Resource):
    """This machine, made ready for one experiment: its environment built, its code at the commit bundled."""

    token = "ems:index:Laptop"
    key = "experiment_id"
    inputs = {"experiment_id": "string", "environment": "string", "python": "string", "commit": "string"}  # noqa: RUF012

    def create(self, operation: Operation, inputs: Properties) -> Properties:
        with operation.database() as database:
            experiment = database.experiment(inputs["experiment_id"])
            if experiment is None:
                raise EmsError(
                    f"Experiment {inputs['experiment_id']} has no row.", "Run `ems up` again: it registers it."
                )
            database.set_provisioning(experiment.id, machines=1)
        prepare(operation.lab, experiment.registration, operation.say)
        return {}

    def read(self, operation: Operation, inputs: Properties) -> Properties | None:
        return {} if AgentConfig.exists(operation.lab.run_dir(inputs["experiment_id"])) else None

    def delete(self, operation: Operation, inputs: Properties) -> None:
        run_dir = operation.lab.run_dir(inputs["experiment_id"])
        remove_inputs(run_dir / "inputs")
        shutil.rmtree(run_dir / "code", ignore_errors=True)


class Laptop(Place):
    cluster = LaptopResource.token
    needs_remote = False
    stops_with_its_command = True

    def __init__(self) -> None:
        self._agents: dict[str, list[subprocess.Popen[bytes]]] = {}

    def resources(self) -> Sequence[Resource]:
        return [LaptopResource()]

    def ensure_running(self, lab: Lab, experiment: Experiment) -> None:
        started = self._agents.setdefault(experiment.id, [])
        run_dir = lab.run_dir(experiment.id)
        if (started and started[-1].poll() is None) or _attended(run_dir, experiment):
            return
        if len(started) >= MOST_STARTS:
            raise EmsError(f"The agent ended {MOST_STARTS} times without a result.", f"See {run_dir / 'agent.log'}")
        if not AgentConfig.exists(run_dir):
            prepare(lab, experiment.registration, quiet)
        else:  # the cache may have lost them since
            inputs.stage(lab.root, _described(experiment.registration), quiet)
        started.append(start_agent(run_dir))

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        run_dir = lab.run_dir(experiment.id)
        if AgentConfig.exists(run_dir):
            start_agent(run_dir).wait()


PLACE = Laptop()


def prepare(lab: Lab, registration: Registration, say: Say) -> None:
    """Stage the inputs, build the environment and the bundle (all once), and write down what the agent needs."""
    run_dir = lab.run_dir(registration.id)
    run_dir.mkdir(parents=True, exist_ok=True)
    described = _described(registration)
    code = provenance.at_commit(lab.root, described.code.model_copy(update={"commit": registration.commit}))
    pinned = environment.of(lab.root, code, registration.environment)
    if pinned.digest != registration.environment_digest:  # with `code.repo` it is read at the lab's HEAD
        raise ProvenanceError(
            f"environments/{registration.environment} has changed since the experiment was registered.",
            f"Repeat: ems up {registration.stack}",
        )
    files = inputs.stage(lab.root, described, say)
    folder = environment.build(pinned, say)
    say("bundling the code")
    package = bundle.make(lab.work_dir / "bundles", code, pinned, registration.spec)
    AgentConfig(
        experiment_id=registration.id,
        database=lab.database_url,
        root=str(lab.root),
        bundle=str(package.path),
        environment=str(folder),
        inputs={name: str(file) for name, file in files.items()},
    ).write(run_dir)


def _described(registration: Registration) -> ExperimentSpec:
    described = spec.from_json("experiment", registration.spec)
    assert isinstance(described, ExperimentSpec)
    return described


def start_agent(run_dir: Path) -> subprocess.Popen[bytes]:
    """An agent in a session of its own: neither Ctrl-C nor a closed terminal reaches it."""
    with (run_dir / "agent.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "ems.node", str(run_dir)],
            cwd=run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _attended(run_dir: Path, experiment: Experiment) -> bool:
    """Whether a living agent holds the run: one of this folder by its lock, one elsewhere by its lease."""
    if experiment.state is State.LOST:
        return False
    if experiment.state is State.RUNNING and experiment.agent != agent_name(run_dir):
        return True
    return is_locked(run_dir / "agent.lock")
