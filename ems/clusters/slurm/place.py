"""A Slurm machine: jobs are submitted with `sbatch` from where this runs, and meet on a shared file system."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ems.base.aside import write
from ems.base.errors import ProvenanceError
from ems.base.messages import Say, quiet
from ems.base.process import CommandFailed
from ems.clusters import Live, Place, local, shipping
from ems.clusters.slurm import crew, environments, heads, late, queue, script
from ems.clusters.slurm import head as head_agent
from ems.clusters.slurm.heads import Head
from ems.clusters.slurm.queue import Queue, QueuedJob
from ems.clusters.slurm.settings import Wanted, wanted
from ems.clusters.slurm.survey import refuse, survey
from ems.databases import ClusterRow, Experiment, Funding, Registration, State
from ems.lab import Lab, outputs
from ems.node import run_folder
from ems.node.agent.config import tell_to_listen
from ems.node.agent.lock import dismiss

if TYPE_CHECKING:
    from ems.provenance.environment import Environment


class Slurm(Place):
    """A run is led by a job of its own, the head, in which the agent works."""

    needs_remote = False

    def __init__(self) -> None:
        self._heads: dict[str, Head] = {}
        self._queue = Queue()
        self._agents = local.Agents()

    def survey(self, lab: Lab, stack: str, settings: Mapping[str, Any], say: Say) -> Mapping[str, Any]:  # noqa: ARG002
        late.settle(lab)
        return survey(lab, wanted(settings), say)

    def refuse(self, lab: Lab, registration: Registration) -> None:
        late.settle(lab)
        refuse(settings_of(lab, registration), joined=outputs.has_points(registration))

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        place_run_dir(lab, registration)
        local.prepare(lab, registration, say, self._build(lab, registration))

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return local.is_prepared(lab, experiment_id)

    def release(self, lab: Lab, experiment_id: str) -> None:
        self.dismiss(lab, experiment_id)
        self._heads.pop(experiment_id, None)
        environments.forget(lab.run_dir(experiment_id))
        local.release(lab, experiment_id)

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        if experiment.state is State.RUNNING:
            return ""
        head = self._head(lab, experiment.id)
        try:
            job = head.job()
        except CommandFailed as error:
            if error.code == heads.NOT_FOUND:
                raise heads.refused(error) from error
            return _news(head, f"Slurm does not answer, trying on: {error.stderr.strip() or error.message}")
        if job:
            return head.news(
                f"{job.id} {job.restarts} {job.state} {job.reason} {head.is_early}",
                lambda: self._told(head, job, experiment),
            )
        return _news(head, self._replace(lab, experiment, head)) if head.is_gone() else ""

    def _told(self, head: Head, job: QueuedJob, experiment: Experiment) -> str:
        waits = job.state == "PENDING"
        place = self._queue.place(job) if waits and not head.is_early else None
        maintenance = queue.maintenance(datetime.now(UTC)) if heads.is_held_for_maintenance(job) else None
        return heads.told(job, place, maintenance, head.waited(experiment))

    def _replace(self, lab: Lab, experiment: Experiment, head: Head) -> str:
        last, run_dir = head.last(), lab.run_dir(experiment.id)
        if head.was_to_go_on():
            head.submitted = 0
        if head.submitted and (said := environments.failure(run_dir)):
            raise ProvenanceError(said)
        if head.submitted >= heads.MOST_SUBMITTED:
            said = run_folder.last_words(run_dir)
            raise local.in_vain(head.submitted, said, str(run_dir / "agent.log"), experiment)
        if last or not environments.is_described(run_dir):
            registration = experiment.registration
            local.prepare_again(lab, registration, quiet, self._build(lab, registration))
        environments.forget_failure(run_dir)
        needed = settings_of(lab, experiment.registration)
        file = run_dir / "head.sh"
        head_agent.write(run_dir, needed)
        write(file, script.head(shipping.boot(run_dir, "head", head_agent.__name__), run_dir, needed))
        if waits := head.submit(file, script.head_options(head.name, run_dir, needed)):
            return waits
        return f"the agent ended ({run_folder.last_words(run_dir)}); another job was submitted" if last else ""

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        if self._head(lab, experiment_id).last():
            with suppress(CommandFailed):  # it ends by itself, once it reads its row
                queue.cancel([heads.job_name(experiment_id), crew.crew_name(experiment_id)])
        dismiss(lab.run_dir(experiment_id))

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        self._agents.settle(lab, experiment)

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        tell_to_listen(lab.run_dir(experiment.id))

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        return run_folder.log(lab.run_dir(experiment.id), start)

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        run_dir = lab.run_dir(experiment.id)
        found = local.live(run_dir, experiment)
        if found is None or experiment.state.finished:
            return found
        if experiment.state is State.RUNNING:
            return replace(found, waits=crew.waits(run_dir))
        head = self._head(lab, experiment.id)
        waited = head.waited(experiment)
        mine = (job for job in self._queue.known() if job.name == head.name)
        return replace(found, waits=next((heads.told(job, waited=waited) for job in mine), ""))

    def _build(self, lab: Lab, registration: Registration) -> local.Build:
        """Environments are built in jobs: here it is written down which."""
        needed, run_dir = settings_of(lab, registration), lab.run_dir(registration.id)

        def describe(environment: Environment, say: Say) -> None:  # noqa: ARG001
            environments.describe(lab, environment, needed, run_dir)

        return describe

    def _head(self, lab: Lab, experiment_id: str) -> Head:
        run_dir = lab.run_dir(experiment_id)
        return self._heads.setdefault(experiment_id, Head(run_dir, experiment_id, self._queue))


def settings_of(lab: Lab, registration: Registration) -> Wanted:
    """What holds for a run: what its experiment says, then the place's stack, then the defaults."""
    own = json.loads(registration.spec)["cluster"]
    with lab.database() as database:
        row = database.record(ClusterRow, registration.cluster)
        funding = database.record(Funding, registration.funding)
    of_place = json.loads(row.settings) if row else {}
    return wanted(own, of_place, account=funding.slurm_account if funding else "")


def place_run_dir(lab: Lab, registration: Registration) -> None:
    """Have the run's folder lie in the place's `work_dir`, if it has one, and a link to it in the lab's."""
    work_dir = os.path.expandvars(settings_of(lab, registration).work_dir)
    here = lab.run_dir(registration.id)
    if not work_dir or (here.is_dir() and not here.is_symlink()):
        return
    there = Path(work_dir).expanduser() / "runs" / registration.id
    there.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not here.is_symlink():
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(there)


def _news(head: Head, said: str) -> str:
    return head.news(said, lambda: said) if said else ""


PLACE = Slurm()
