"""What places on this machine share: an experiment made ready in the lab's folder, and an agent as its own process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ems import clusters
from ems.base.errors import EmsError, ProvenanceError, UserError
from ems.base.messages import Say, quiet
from ems.base.private import make_folder
from ems.clusters import Live
from ems.databases import Experiment, Registration, State
from ems.lab import Lab, repository
from ems.lab.repository import WorkTree
from ems.node import WHEN_TOLD, run_folder
from ems.node.agent.config import AgentConfig
from ems.node.agent.lock import agent_name, dismiss, holder, lock_file
from ems.node.job.keeper import is_locked
from ems.stack.models import CodeSpec, ExperimentSpec

if TYPE_CHECKING:
    from ems.provenance.code import Code
    from ems.provenance.environment import Environment

SILENT_S = 30.0  # past its lease, an agent that does not beat hangs
STARTING_S = 60.0  # in which an agent has the lock, from one that hangs too
LOOK_S = 2.0
MOST_STARTS = 5  # of an agent that does not live, before its error is a person's to fix
Build: TypeAlias = "Callable[[Environment, Say], Path | None]"  # gives the folder; None where each machine has its own
_prepared: set[str] = set()  # the experiments that this process has made ready


def prepare(lab: Lab, registration: Registration, say: Say, build: Build | None = None) -> None:
    """Stage the inputs, build the environment and the bundle (all once), and write down what the agent needs.

    `build`: has the environment built otherwise than on this machine.
    ProvenanceError if the environment is not as it was when the experiment was registered.
    """
    from ems.provenance import (  # GitPython and pydantic: only where something is made
        building,
        bundle,
        environment,
        inputs,
    )

    lab.make_store_ready()
    described = _described(registration)
    with repository.opened(lab.root) as tree:
        code = _code(tree, registration, described.code)
        pinned = environment.of(tree, code, described.environment)
    if pinned.digest != registration.environment_digest:  # with `code.repo` it is read at the lab's HEAD
        raise ProvenanceError(
            f"The environment {registration.environment} has changed since the experiment was registered.",
            f"Repeat: ems up {registration.stack}",
        )
    files = inputs.stage(lab.root, described, say)
    folder = (build or building.build)(pinned, say)
    say("bundling the code")
    package = bundle.make(lab.work_dir / "bundles", code, pinned, registration.spec)
    AgentConfig(
        experiment_id=registration.id,
        database=lab.database_url,
        root=str(lab.root),
        bundle=str(package.path),
        environment=str(folder or ""),
        inputs={name: str(file) for name, file in files.items()},
        commit=code.commit,
        store=lab.store_url,
    ).write(lab.run_dir(registration.id))
    _prepared.add(registration.id)


def _code(tree: WorkTree, registration: Registration, declared: CodeSpec) -> Code:
    """The code at the recorded commit or, if that is gone (amended, squashed, rebased), at HEAD with the same content.

    What an experiment is follows from the content: the commit only says where it is found.
    """
    from ems.provenance import code

    try:
        return code.at_commit(tree, declared.model_copy(update={"commit": registration.commit}), registration.tree)
    except ProvenanceError:
        with suppress(ProvenanceError):  # what is wrong with HEAD is not what is to be said
            found = code.at_commit(tree, declared.model_copy(update={"commit": "HEAD"}), registration.tree)
            if found.tree == registration.tree:
                return found
        raise


def prepare_again(lab: Lab, registration: Registration, say: Say, build: Build | None = None) -> None:
    """The same before each agent: caches may have lost what was made, and the lab's folder may have been moved.

    Where the code is gone from git, what an earlier preparation made serves, if all of it is still there.
    """
    try:
        prepare(lab, registration, say, build)
    except ProvenanceError:
        if not _is_whole(lab.run_dir(registration.id)):
            raise
        stage_inputs(lab, registration, say)


def _is_whole(run_dir: Path) -> bool:
    try:
        config = AgentConfig.read(run_dir)
    except UserError:
        return False
    from ems.provenance import environment

    is_there = not config.environment or environment.is_intact(Path(config.environment))
    return is_there and Path(config.bundle).is_file()


def is_prepared(lab: Lab, experiment_id: str) -> bool:
    """As `Place.is_prepared`: whether the experiment's run folder has what its agent needs."""
    return AgentConfig.exists(lab.run_dir(experiment_id))


def stage_inputs(lab: Lab, registration: Registration, say: Say) -> None:
    """Once more, of a prepared experiment: the cache may have lost its input files since."""
    from ems.provenance import inputs

    inputs.stage(lab.root, _described(registration), say)


def _described(registration: Registration) -> ExperimentSpec:
    from ems.stack import spec

    described = spec.from_json("experiment", registration.spec, clusters.settings())
    assert isinstance(described, ExperimentSpec)
    return described


def release(lab: Lab, experiment_id: str) -> None:
    """As `Place.release`; what jobs left stays."""
    run_dir = lab.run_dir(experiment_id)
    dismiss(run_dir)
    run_folder.release(run_dir)


def in_vain(starts: int, said: str, log: str, experiment: Experiment) -> EmsError:
    """Of agents that ended again and again. `said`: the last words of one; `log`: where more of them is."""
    message = f"The agent ended {starts} times without a result: {said.rstrip('.')}."
    return EmsError(message, f"See {log}; go on with: ems up {experiment.registration.stack}")


class Silence:
    """For how long the run of an agent that lives has read otherwise than `running`, by looks at its row.

    A long time between two looks counts for little: the machine slept, or the database was away, from the agent too.
    """

    def __init__(self) -> None:
        self.lasted_s = 0.0
        self._looked_at = time.monotonic()

    def look(self, silent: bool) -> None:
        """Once more."""
        now = time.monotonic()
        self.lasted_s = self.lasted_s + min(now - self._looked_at, LOOK_S) if silent else 0.0
        self._looked_at = now


class Agents:
    """The agents that this process started, each a session of its own: neither Ctrl-C nor a closed terminal reaches it.

    `before`: words in front of an agent's command, such as ("nice", "-n", "19").
    """

    def __init__(self, before: Sequence[str] = ()) -> None:
        self._before = before
        self._started: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._silences: dict[str, Silence] = {}
        self._ended: dict[str, str] = {}  # why, of agents that this process ended
        self._expected: dict[Path, subprocess.Popen[bytes]] = {}  # those that `start` only has to tell

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        """As `Place.ensure_running`, for a place in the lab's own folder."""
        started = self._started.setdefault(experiment.id, [])
        run_dir = lab.run_dir(experiment.id)
        if self._is_at_work(started, run_dir, experiment) or is_attended(run_dir, experiment):
            return ""
        if len(started) >= MOST_STARTS:
            raise in_vain(MOST_STARTS, run_folder.last_words(run_dir), str(run_dir / "agent.log"), experiment)
        if started or experiment.id not in _prepared:
            prepare_again(lab, experiment.registration, quiet)
        self._silences.pop(experiment.id, None)
        started.append(self.start(run_dir))
        if len(started) == 1:
            return ""
        why = self._ended.pop(experiment.id, "") or run_folder.last_words(run_dir)
        return f"the agent ended ({why}); another one was started"

    def forget(self, experiment_id: str) -> None:
        """The run is over: what this process knows of its agents says nothing of another one."""
        for known in (self._started, self._silences, self._ended):
            known.pop(experiment_id, None)

    def _is_at_work(self, started: Sequence[subprocess.Popen[bytes]], run_dir: Path, experiment: Experiment) -> bool:
        """Whether the agent that this process started last lives; one that hangs is ended."""
        if not started or started[-1].poll() is not None:
            return False
        silence = self._silences.setdefault(experiment.id, Silence())
        silence.look(experiment.state is not State.RUNNING)
        if silence.lasted_s < (SILENT_S if holder(run_dir) == started[-1].pid else STARTING_S):
            return True
        self._ended[experiment.id] = "as it did not beat any more"
        started[-1].kill()
        started[-1].wait()
        return False

    def expect(self, lab: Lab, experiment_id: str) -> None:
        """As `Place.expect`: a process that loads what an agent needs, and ends with this one unless it is told."""
        run_dir, kind = lab.run_dir(experiment_id), lab.database_url.partition(":")[0]
        make_folder(run_dir)
        self._expected[run_dir] = self._process(run_dir, WHEN_TOLD, kind, stdin=subprocess.PIPE)

    def start(self, run_dir: Path) -> subprocess.Popen[bytes]:
        """An agent of this prepared run folder, a process in a session of its own that writes to agent.log."""
        expected = self._expected.pop(run_dir, None)
        if expected and expected.stdin:
            with suppress(OSError), expected.stdin as told:
                told.write(b"\n")
                told.flush()
                return expected
        return self._process(run_dir)

    def _process(self, run_dir: Path, *words: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with (run_dir / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [*self._before, sys.executable, "-m", "ems.node", *words, str(run_dir)],
                cwd=run_dir,
                stdin=stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        """As `Place.settle`."""
        run_dir = lab.run_dir(experiment.id)
        if AgentConfig.exists(run_dir):
            self.start(run_dir).wait()


def is_of_this_machine(run_dir: Path, experiment: Experiment) -> bool:
    """Whether the run is this lab folder's own, or nobody's yet: not one of a colleague's machine."""
    return experiment.state is not State.RUNNING or (run_dir.is_dir() and experiment.agent == agent_name(run_dir))


def is_attended(run_dir: Path, experiment: Experiment) -> bool:
    """Whether a living agent holds the run: one of this folder by its lock, one elsewhere by its lease."""
    if experiment.state is State.LOST:
        return False
    if experiment.state is State.RUNNING and experiment.agent != agent_name(run_dir):
        return True
    return is_locked(lock_file(run_dir))


def live(run_dir: Path, experiment: Experiment) -> Live | None:
    """As `Place.live`: what the driver of a sweep writes about once a second."""
    if not run_dir.exists():
        return None
    found = run_folder.progress(run_dir) if experiment.state is State.RUNNING else None
    return Live(*found) if found else Live()
