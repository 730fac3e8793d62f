"""A Slurm machine that a laptop reaches by SSH: its login node answers, and runs lie in `work_dir` there."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ems.base.messages import Say
from ems.base.private import make_folder
from ems.clusters import local, pull, sent, shipping
from ems.clusters.pull import Pull
from ems.clusters.sent import SENT, THERE
from ems.clusters.slurm.heads import FIRST_LOOK_S, FIRST_S, LATER_LOOK_S
from ems.clusters.slurm.machine import Found, Machine, Run
from ems.clusters.slurm.site import Site
from ems.clusters.slurm.wanted import Wanted
from ems.databases import Experiment, Registration
from ems.lab import Lab
from ems.node.agent.config import AgentConfig
from ems.node.environments.ready import CODE, ORDER
from ems.node.environments.recipe import Order

if TYPE_CHECKING:
    from ems.provenance.environment import Environment

LOOK_S, LATER_S = 2.0, 10.0  # between two looks at runs that ask Slurm nothing: in the first minute, and later
SETTLE_S = 60.0  # in which a job stores what is left of a run
NEVER = float("-inf")
RELEASED = "released"  # beside them: it is over, so that nobody looks at it
PROBE = "ems.clusters.slurm.probe"


class Far(Machine):
    """Asked by SSH. What of a run's folder is made here is made in the lab's own, and sent."""

    def __init__(self, wanted: Wanted, login: str) -> None:
        """`login`: the command by which a person connects."""
        self._site, self._began = Site(wanted, login), time.monotonic()
        self._asked: dict[str, tuple[Run, float]] = {}  # runs that are attended to, and when Slurm was asked for them
        self._known: dict[str, Found] = {}  # of each run's folder, without asking Slurm
        self._known_at = NEVER

    def ask(self, question: str, **words: Any) -> dict[str, Any]:
        return self._site.ask(question, **words)

    def look(self, lab: Lab, run: Run, *, asks: bool) -> Found | None:
        return self._look(run) if asks else self._glance(lab, run)

    def _look(self, run: Run) -> Found | None:
        """One command for all runs that this process attends to and that are due."""
        now = time.monotonic()
        known, at = self._asked.get(run.id, (run, NEVER))
        if known is run and now - at < _pause_s(run):
            return None
        self._asked[run.id] = run, NEVER
        due = [each for each, at in self._asked.values() if now - at >= _pause_s(each)]
        self._asked |= {each.id: (each, now) for each in due}
        found: list[Found] = self.ask("look", runs=[each.question() for each in due], asks=True)["runs"]
        for each, seen in zip(due, found, strict=True):
            each.saw(seen)
        return found[due.index(run)]

    def _glance(self, lab: Lab, run: Run) -> Found | None:
        """One command for all runs of the lab that were sent there."""
        if str(run.folder) not in self._known or time.monotonic() - self._known_at >= self._glance_s:
            runs = [run, *(each for each in self._sent(lab) if each.id != run.id)]
            found = self.ask("look", runs=[each.question() for each in runs], asks=False)["runs"]
            self._known = {str(each.folder): said for each, said in zip(runs, found, strict=True)}
            self._known_at = time.monotonic()
        return self._known[str(run.folder)]

    @property
    def _glance_s(self) -> float:
        return LOOK_S if time.monotonic() - self._began < FIRST_S else LATER_S

    def _sent(self, lab: Lab) -> Iterator[Run]:
        for file in self.runs_here(lab).glob(f"*/{SENT}"):
            folder = self.folder(lab, file.parent.name)
            if folder and folder.parent == self.runs(lab) and not file.with_name(RELEASED).exists():
                yield Run(self, folder, folder.name)

    def patiently(self, do: Callable[[], None], say: Say) -> None:
        self._site.patiently(do, say)

    def is_connected(self) -> bool:
        return self._site.is_connected()

    def pull(self, lab: Lab, experiment_id: str) -> Pull | None:
        return pull.of(lab, experiment_id, self._site)

    @staticmethod
    def runs_here(lab: Lab) -> Path:
        """The folder that has what is made here of runs."""
        return lab.work_dir / "runs"

    def work_dir(self, lab: Lab, wanted: Wanted) -> PurePosixPath:  # noqa: ARG002
        return self._site.folder

    def runs(self, lab: Lab) -> PurePosixPath:  # noqa: ARG002
        return self._site.folder / "runs"

    def folder(self, lab: Lab, experiment_id: str) -> PurePosixPath | None:
        return sent.folder(lab.run_dir(experiment_id))

    def prepare(self, lab: Lab, registration: Registration, wanted: Wanted, say: Say, *, again: bool) -> None:
        if again:  # who asks for that tries on by itself
            self._ship(lab, registration, wanted, say, again=True)
        else:
            self._site.patiently(lambda: self._ship(lab, registration, wanted, say, again=False), say)

    def _ship(self, lab: Lab, registration: Registration, wanted: Wanted, say: Say, *, again: bool) -> None:
        site, here = self._site, lab.run_dir(registration.id)
        say(f"asking {site.host.name}")
        there = site.run_dir(registration.id)
        site.ask("ready", run_dir=str(there), archives=str(site.environments))
        mail = self.pull(lab, registration.id)
        if mail:
            mail.own()

        def describe(environment: Environment, say: Say) -> None:  # noqa: ARG001
            make_folder(here)
            self._order(shipping.order(environment, **self._folders(there, wanted))).write(here / ORDER)
            shipping.zip_code(here / CODE)

        (local.prepare_again if again else local.prepare)(lab, registration, say, describe)
        say(f"sending code and inputs to {site.host.name}")
        config = AgentConfig.read(here)
        site.carried(mail.addressed(config) if mail else config, again=again).write(here / THERE)
        (here / RELEASED).unlink(missing_ok=True)
        sent.send(site, here, there, mail)

    def _folders(self, there: PurePosixPath, wanted: Wanted) -> dict[str, Any]:
        """What an order says of the machine; `there`: the folder that has the code."""
        return {
            "archives": str(self._site.environments),
            "scratch": wanted.local_scratch,
            "code": str(there / CODE),
            "modules": wanted.modules,
        }

    def _order(self, order: Order) -> Order:
        """As it holds there: which Slurm is asked, and whose cache is used, follows from the login there."""
        own = {name: text for name, text in order.variables.items() if name not in {"SLURM_CONF", "UV_CACHE_DIR"}}
        return replace(order, uv=self._site.uv(), variables=own)

    def is_prepared(self, lab: Lab, experiment_id: str) -> bool:
        return self.folder(lab, experiment_id) is not None

    def probe(self, lab: Lab, work_dir: PurePath, wanted: Wanted) -> tuple[PurePath, str]:
        there = PurePosixPath(work_dir) / f"probe-{uuid.uuid4().hex[:12]}"
        self._site.ask("ready", run_dir=str(there), archives=str(self._site.environments))
        with TemporaryDirectory() as folder:
            here = Path(folder)
            AgentConfig("", lab.database_url, str(work_dir), "", "", store=lab.store_url).write(here)
            self._order(shipping.order(None, **self._folders(there, wanted))).write(here / ORDER)
            shipping.zip_code(here / CODE)
            for file in (here / CODE, here / ORDER, here / "agent.json"):
                self._site.send(file, there / file.name)
        return there, shipping.boot(Path(there), "head", PROBE)

    def forget(self, lab: Lab, experiment_id: str) -> None:
        (lab.run_dir(experiment_id) / RELEASED).touch()
        self._asked.pop(experiment_id, None)

    def dismiss(self, lab: Lab, experiment_id: str) -> None:
        """Nothing is."""

    def settle(self, lab: Lab, experiment: Experiment, run: Run, wanted: Callable[[], Wanted]) -> None:  # noqa: ARG002
        """By a job of its own, for which nobody waits long."""
        give_up_at, submitted = time.monotonic() + SETTLE_S, False
        while time.monotonic() < give_up_at:
            found = self.ask("look", runs=[run.question()], asks=True)["runs"][0]
            run.saw(found)
            if found.get("gone") and (submitted or not found["described"]):
                return
            if found.get("gone"):
                submitted = not run.submit(wanted(), after=found["number"])
            time.sleep(FIRST_LOOK_S)

    def nudge(self, run: Run) -> None:
        self._site.nudge(PurePosixPath(run.folder))

    def log(self, run: Run, start: int) -> bytes | None:
        return self._site.log(PurePosixPath(run.folder), start)

    def where(self, file: PurePath) -> str:
        return f"{file} on {self._site.host.name}"


def _pause_s(run: Run) -> float:
    return FIRST_LOOK_S if run.lasted_s < FIRST_S else LATER_LOOK_S
