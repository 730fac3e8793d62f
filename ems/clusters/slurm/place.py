"""A Slurm machine: jobs are submitted with `sbatch` where its commands are, and meet on its shared file system."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ems.base.errors import DatabaseUnavailable, ProvenanceError, StoreUnavailable, Unreachable
from ems.base.messages import Say, quiet
from ems.clusters import Fetched, Live, Place, local, pull, settings_said
from ems.clusters.openssh import Host
from ems.clusters.pull import Pull
from ems.clusters.pulled_files import FILES_WAIT
from ems.clusters.slurm import machine as reaching
from ems.clusters.slurm.far import Far
from ems.clusters.slurm.machine import Found, Machine, Run
from ems.clusters.slurm.near import Near
from ems.clusters.slurm.queue import Queue
from ems.clusters.slurm.site import reached
from ems.clusters.slurm.wanted import Wanted, wanted
from ems.databases import Experiment, Funding, Registration, State
from ems.lab import Lab, outputs
from ems.lab.experiments import find

FETCHED = "on the laptop, which fetches rows and files"


class Slurm(Place):
    """A run is led by a job of its own, the head, in which the agent works."""

    needs_remote = False
    fetches_rows = True

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._queue = Queue()
        self._near = Near(self._queue)
        self._far: dict[object, Far] = {}

    def host(self, settings: Mapping[str, Any], login: str) -> Host | None:
        needed = wanted(settings)
        return Host(needed.host, login, unattended=needed.unattended) if needed.is_far else None

    def survey(self, lab: Lab, stack: str, settings: Mapping[str, Any], say: Say) -> Mapping[str, Any]:
        needed = wanted(settings)
        machine = self._machine(needed, stack)
        say("asking Slurm")
        work_dir = machine.work_dir(lab, needed)
        found = machine.ask("survey", wanted=asdict(needed), work_dir=str(work_dir))
        reaching.settled_charges(lab, machine)
        lab.make_store_ready()
        say("asking a compute node, by a job of its own")
        folder, command = machine.probe(lab, work_dir, needed)
        found |= machine.ask("probe", wanted=asdict(needed), folder=str(folder), command=command)
        return found | (dict.fromkeys(("database", "store"), FETCHED) if needed.is_far and pull.is_needed(lab) else {})

    def refuse(self, lab: Lab, registration: Registration) -> None:
        needed = settings_of(lab, registration)
        if needed.is_far:
            pull.refuse_rounds(lab, registration)
        machine = self._machine(needed, stack_of(registration))
        with suppress(Unreachable):
            reaching.settled_charges(lab, machine)
            machine.ask("refuse", wanted=asdict(needed), joined=outputs.has_points(registration))

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        needed = settings_of(lab, registration)
        self._machine(needed, stack_of(registration)).prepare(lab, registration, needed, say, again=False)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return self._machine_of(lab, experiment_id).is_prepared(lab, experiment_id)

    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:
        if run := self._run(lab, experiment_id):
            run.machine.patiently(lambda: run.release(lab), say)
        self._runs.pop(experiment_id, None)

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        run = self._run(lab, experiment.id)
        try:
            if run and run.fetch(at_once=False):
                experiment = find(lab, experiment.id) or experiment
            if experiment.state is State.RUNNING or experiment.state.finished:
                return ""
            return self._attended(lab, experiment, run or self._prepared(lab, experiment))
        except Unreachable as error:
            said = f"waiting for a connection: {error.message} {error.hint}"
            return run.news(said) if run else said
        except DatabaseUnavailable:
            return ""  # who asks waits for it
        except StoreUnavailable as error:
            return run.news(FILES_WAIT.format(error.message)) if run else error.message

    def _prepared(self, lab: Lab, experiment: Experiment) -> Run:
        self.prepare(lab, experiment.registration, quiet)
        run = self._run(lab, experiment.id)
        assert run
        return run

    def _attended(self, lab: Lab, experiment: Experiment, run: Run) -> str:
        found = run.machine.look(lab, run, asks=True) or {}
        if unanswered := found.get("unanswered"):
            return run.news(f"Slurm does not answer, trying on: {unanswered}")
        if found.get("job"):
            return run.news(reaching.told(experiment, found), found["key"])
        return run.news(self._replace(lab, experiment, run, found)) if found.get("gone") else ""

    def _replace(self, lab: Lab, experiment: Experiment, run: Run, found: Found) -> str:
        if found["goes_on"]:
            run.submitted = 0
        if run.submitted and found["failed"]:
            raise ProvenanceError(found["failed"])
        if run.submitted >= local.MOST_STARTS:
            log = run.machine.where(run.folder / "agent.log")
            raise local.in_vain(run.submitted, found["said"], log, experiment)
        last, needed = found["number"], settings_of(lab, experiment.registration)
        if last or not found["described"]:
            run.machine.prepare(lab, experiment.registration, needed, quiet, again=True)
        if waits := run.submit(needed, after=last):
            return waits
        return f"the agent ended ({found['said']}); another job was submitted" if last else ""

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        with suppress(Unreachable):  # it ends by itself, once it reads its row
            if run := self._run(lab, experiment_id):
                run.machine.ask("cancel", run_dir=str(run.folder), experiment_id=experiment_id)
                run.machine.dismiss(lab, experiment_id)

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        with suppress(Unreachable):  # the next command does
            if run := self._run(lab, experiment.id):
                run.machine.settle(lab, experiment, run, lambda: settings_of(lab, experiment.registration))

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        if run := self._run(lab, experiment.id):
            with suppress(Unreachable):
                run.fetch()
            run.machine.nudge(run)

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        run = self._run(lab, experiment.id)
        return run.machine.log(run, start) if run else None

    def fetch(self, lab: Lab, experiment: Experiment) -> Fetched | None:
        run = self._run(lab, experiment.id)
        return run.fetch() if run else None

    def at_hand(self, lab: Lab, experiment: Experiment) -> Pull | None:
        run = self._run(lab, experiment.id)
        return run.pull if run and run.machine.is_connected() else None

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        run = self._run(lab, experiment.id)
        if run is None or experiment.state.finished:
            return Live() if run and lab.run_dir(experiment.id).exists() else None
        try:
            found = run.machine.look(lab, run, asks=False)
        except Unreachable:
            return None
        if found is None:
            return None
        if experiment.state is State.RUNNING:
            rate, workers = found["progress"] or (None, None)
            return Live(rate, workers, found["workers"])
        return Live(waits=reaching.told(experiment, found) if found.get("job") else "")

    def _machine(self, needed: Wanted, stack: str) -> Machine:
        if not needed.is_far:
            return self._near
        key = (reached(needed), needed.modules, stack)
        if key not in self._far:
            self._far[key] = Far(needed, login_command(stack))
        return self._far[key]

    def _machine_of(self, lab: Lab, experiment_id: str) -> Machine:
        """Of one that the database has lost, the machine that this one is."""
        with lab.database() as database:
            found = database.experiment(experiment_id)
        if found is None:
            return self._near
        return self._machine(settings_of(lab, found.registration), stack_of(found.registration))

    def _run(self, lab: Lab, experiment_id: str) -> Run | None:
        """What this process knows of a run that was made ready."""
        if experiment_id not in self._runs:
            machine = self._machine_of(lab, experiment_id)
            folder = machine.folder(lab, experiment_id)
            if folder is None:
                return None
            self._runs[experiment_id] = Run(machine, folder, experiment_id, machine.pull(lab, experiment_id))
        return self._runs[experiment_id]


def settings_of(lab: Lab, registration: Registration) -> Wanted:
    """What holds for a run."""
    with lab.database() as database:
        funding = database.record(Funding, registration.funding)
    own, of_place = settings_said(lab, registration)
    return wanted(own, of_place, account=funding.slurm_account if funding else "")


def stack_of(registration: Registration) -> str:
    """The stack that describes the place: the experiment's own, or that of a persistent one."""
    return registration.stack if registration.cluster == "slurm" else registration.cluster


def login_command(stack: str) -> str:
    """By which a person connects to the place that this stack describes."""
    return f"ems login {stack}"


PLACE = Slurm()
