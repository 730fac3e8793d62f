"""A lab's server: any Linux machine with SSH. The agent there stores into the lab's database by itself, if it can."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ems.base.errors import DatabaseUnavailable, ProvenanceError, StoreUnavailable, Unreachable
from ems.base.messages import Say, quiet
from ems.base.private import make_folder
from ems.clusters import Fetched, Live, Place, local, pull, sent, settings_said, shipping
from ems.clusters.openssh import Host
from ems.clusters.pull import Pull
from ems.clusters.pulled_files import FILES_WAIT
from ems.clusters.sent import THERE
from ems.clusters.server.settings import Wanted, wanted
from ems.clusters.server.site import Site
from ems.databases import Experiment, Registration, State
from ems.lab import Lab, outputs
from ems.lab.experiments import find
from ems.node import hosted, leases
from ems.node.agent.config import AgentConfig
from ems.node.environments.ready import CODE, ORDER
from ems.node.leases import Share

if TYPE_CHECKING:
    from ems.provenance.environment import Environment

LOOK_S = 2.0  # between two looks at a run, which costs a command there
KIND = "server"
SKEWED_S = 5.0


class Server(Place):
    """A run's folder lies in `work_dir` there; what of it is made here is made in the lab's own, and sent."""

    needs_remote = shares_files = False
    fetches_rows = True

    def __init__(self) -> None:
        self._sites: dict[Wanted, Site] = {}
        self._runs: dict[str, _Run] = {}

    def host(self, settings: Mapping[str, Any], login: str) -> Host | None:
        site = Site(wanted(settings), login)
        return site.host if isinstance(site.host, Host) else None

    def survey(self, lab: Lab, stack: str, settings: Mapping[str, Any], say: Say) -> Mapping[str, Any]:  # noqa: ARG002
        site = Site(wanted(settings), login_command(stack))
        say(f"asking {site.host.name}")
        about, skew_s = site.about, round(site.about.clock - time.time())
        site.make_folder()
        found: dict[str, Any] = {"python": about.python, "uv": about.uv or "brought along", "system": about.system}
        found |= {"cores": about.cores, "memory_gb": round(about.memory_gb, 1), "work_dir": str(site.folder)}
        if abs(skew_s) > SKEWED_S:
            found["clock_ahead_s"] = skew_s
            say(f"the clock of {site.host.name} is {abs(skew_s)} s {'ahead' if skew_s > 0 else 'behind'}")
        if site.ends_at_logout():
            found["ends_at_logout"] = True
            say(f"{site.host.name} ends runs at logout (KillUserProcesses=yes): ask who looks after it")
        return found

    def refuse(self, lab: Lab, registration: Registration) -> None:
        pull.refuse_rounds(lab, registration)
        site = self._site(lab, registration)
        with suppress(Unreachable):
            leases.refuse(site.machine, share_of(site, registration))

    def prepare(self, lab: Lab, registration: Registration, say: Say) -> None:
        self._site(lab, registration).patiently(lambda: self._ship(lab, registration, say), say)

    def _ship(self, lab: Lab, registration: Registration, say: Say, *, again: bool = False) -> None:
        """Make what the agent needs here, and send it; `again`: what is there may be damaged."""
        site, run_dir = self._site(lab, registration), lab.run_dir(registration.id)
        there = site.run_dir(registration.id)
        mail = pull.of(lab, registration.id, site)
        if mail:
            mail.own()

        def describe(environment: Environment, say: Say) -> None:
            say(f"asking {site.host.name}")
            order = shipping.order(
                environment, archives=str(site.environments), scratch=str(site.folder), code=str(there / CODE)
            )
            make_folder(run_dir)
            replace(order, uv=site.uv()).write(run_dir / ORDER)
            shipping.zip_code(run_dir / CODE)

        (local.prepare_again if again else local.prepare)(lab, registration, say, describe)
        say(f"sending code and inputs to {site.host.name}")
        config, share = AgentConfig.read(run_dir), share_of(site, registration)
        config = mail.addressed(config) if mail else config
        workers = site.wanted.workers or max(1, share.cores // _threads(registration))
        replace(site.carried(config, again=again), workers=workers).write(run_dir / THERE)
        said = hosted.write(run_dir / THERE, site.machine, share)
        sent.send(site, run_dir, there, mail, [said])

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return sent.folder(lab.run_dir(experiment_id)) is not None

    def release(self, lab: Lab, experiment_id: str, say: Say = quiet) -> None:
        if run := self._run(lab, experiment_id):
            run.site.patiently(run.release, say)
        self._runs.pop(experiment_id, None)

    def ensure_running(self, lab: Lab, experiment: Experiment) -> str:
        run = self._run(lab, experiment.id)
        try:
            if run and run.fetch(at_once=False):
                experiment = find(lab, experiment.id) or experiment
            if experiment.state is State.RUNNING or experiment.state.finished:
                return run.news("") if run and run.pull else ""
            return (run.why_lost(experiment) if run else "") or self._started(lab, experiment, run)
        except Unreachable as error:
            waits = "the run goes on there, if it has begun; " if run and run.pull else ""
            return run.news(f"{waits}waiting for a connection: {error.message}") if run else error.message
        except DatabaseUnavailable:
            return ""  # who asks waits for it
        except StoreUnavailable as error:
            return run.news(FILES_WAIT.format(error.message)) if run else error.message

    def _started(self, lab: Lab, experiment: Experiment, run: _Run | None) -> str:
        if run is None:
            self._ship(lab, experiment.registration, quiet)
            run = self._run(lab, experiment.id)
            assert run
        found = run.look()
        if found.get("booting"):
            return run.news(found["step"])
        if found.get("works") and not run.hangs(experiment):
            return ""
        if found.get("failed") and run.starts:
            raise ProvenanceError(f"On {run.site.host.name}: {found['failed']}")
        said = found.get("said", "its files there are gone or damaged")
        if run.starts >= local.MOST_STARTS:
            log = f"{run.folder / 'agent.log'} on {run.site.host.name}"
            raise local.in_vain(run.starts, said, log, experiment)
        if run.starts or found.get("failed") or not found.get("prepared"):
            self._ship(lab, experiment.registration, quiet, again=True)
        run.fetch()  # what it is to know, as that it was reopened
        run.start(replaced=bool(found.get("works")))
        return run.news(f"the agent ended ({said}); another one was started") if run.starts > 1 else ""

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        with suppress(Unreachable):  # it ends by itself, once it reads its row
            if run := self._run(lab, experiment_id):
                run.site.ask("dismiss", run.folder)

    def settle(self, lab: Lab, experiment: Experiment) -> None:
        with suppress(Unreachable):  # the next command does
            if run := self._run(lab, experiment.id):
                run.site.ask("start", run.folder)

    def nudge(self, lab: Lab, experiment: Experiment) -> None:
        if run := self._run(lab, experiment.id):
            with suppress(Unreachable):
                run.fetch()
            run.site.nudge(run.folder)

    def log(self, lab: Lab, experiment: Experiment, start: int) -> bytes | None:
        run = self._run(lab, experiment.id)
        return run.site.log(run.folder, start) if run else None

    def fetch(self, lab: Lab, experiment: Experiment) -> Fetched | None:
        run = self._run(lab, experiment.id)
        return run.fetch() if run else None

    def at_hand(self, lab: Lab, experiment: Experiment) -> Pull | None:
        run = self._run(lab, experiment.id)
        return run.pull if run and run.site.is_connected() else None

    def live(self, lab: Lab, experiment: Experiment) -> Live | None:
        run = self._run(lab, experiment.id)
        try:
            found = run.look() if run else None
        except Unreachable:
            return None
        if not found:
            return None
        progress = found["progress"] if experiment.state is State.RUNNING else None
        return Live(*progress) if progress else Live(waits=found["step"] if found["booting"] else "")

    def _site(self, lab: Lab, registration: Registration) -> Site:
        needed = settings_of(lab, registration)
        is_own = registration.cluster == KIND  # described in the experiment's stack
        login = login_command(registration.stack if is_own else registration.cluster)
        return self._sites.setdefault(needed, Site(needed, login))

    def _run(self, lab: Lab, experiment_id: str) -> _Run | None:
        """What this process knows of a run that was sent there."""
        folder = sent.folder(lab.run_dir(experiment_id))
        if experiment_id not in self._runs and folder:
            with lab.database() as database:
                found = database.experiment(experiment_id)
            if found:
                site = self._site(lab, found.registration)
                self._runs[experiment_id] = _Run(site, folder, pull.of(lab, experiment_id, site))
        return self._runs.get(experiment_id)


class _Run:
    """One run there, as this process knows it."""

    def __init__(self, site: Site, folder: PurePosixPath, pull: Pull | None) -> None:
        """`pull`: what fetches its rows, where its agent does not reach the database."""
        self.site, self.folder, self.pull = site, folder, pull
        self.starts = 0
        self._silence = local.Silence()
        self._told = self._lost = ""
        self._found: dict[str, Any] = {}
        self._looked_at = 0.0

    def fetch(self, *, at_once: bool = True) -> Fetched | None:
        """As `Pull.fetch`; None where agents store by themselves."""
        return self.pull.fetch(at_once=at_once) if self.pull else None

    def look(self) -> dict[str, Any]:
        """What is known of it there, at most LOOK_S ago."""
        if time.monotonic() - self._looked_at > LOOK_S:
            self._found = self.site.ask("look", self.folder)
            self._looked_at = time.monotonic()
        return self._found

    def release(self) -> None:
        """As `Place.release`."""
        self.fetch()
        self.site.ask("release", self.folder)

    def start(self, *, replaced: bool) -> None:
        """An agent; one that hangs is replaced."""
        self.starts += 1
        self._silence = local.Silence()
        self.site.ask("start", self.folder, replace=replaced)
        self._looked_at = 0.0

    def hangs(self, experiment: Experiment) -> bool:
        """Whether an agent that holds the run has not beaten for long."""
        self._silence.look(experiment.state is not State.RUNNING)
        return self._silence.lasted_s > local.SILENT_S

    def why_lost(self, experiment: Experiment) -> str:
        """Why the run before is followed by another one, as far as it says so, once."""
        said = experiment.error if experiment.state is State.LOST else ""
        self._lost, before = said, self._lost
        return said if said != before else ""

    def news(self, said: str) -> str:
        """What is new to people."""
        self._told, before = said, self._told
        return said if said != before else ""


def share_of(site: Site, registration: Registration) -> Share:
    """What a run takes of the server: as its settings say, else what it computes with."""
    processes = (site.wanted.workers or site.machine.cores) if outputs.has_points(registration) else 1
    cores = site.wanted.cores or min(processes * _threads(registration), site.machine.cores)
    return Share(cores, site.wanted.memory_gb, site.wanted.gpus)


def _threads(registration: Registration) -> int:
    """Of each process that computes."""
    threads: int = json.loads(registration.spec)["job"]["threads"]
    return threads


def login_command(stack: str) -> str:
    """By which a person connects to the place that this stack describes."""
    return f"ems login {stack}"


def settings_of(lab: Lab, registration: Registration) -> Wanted:
    """What holds for a run."""
    return wanted(*settings_said(lab, registration))


PLACE = Server()
