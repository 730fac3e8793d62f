"""The agent: runs one experiment's job in a run folder and stores what it writes. `python -m ems.node RUN_DIR`

RUN_DIR holds `agent.json` (AgentConfig), `agent.lock` and `agent.id`, `code/` (the unpacked bundle), `parameters.json`,
`results/`, `checkpoint/`, `spool-N/` of run N, `job.log`, `job.lock`, `platform.json` and, once the job has ended until
all is stored, `exit.json`; for a moment `agent.listen`, where somebody has the agent hear its orders at once.
What the job is follows from the experiment's row: the bundle may be lost at any time, and is made again.
"""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, TypeVar

from ems.base.backoff import Backoff
from ems.base.errors import DatabaseUnavailable
from ems.databases import Claim, Database, Experiment, State, connect
from ems.node import mailbox
from ems.node.agent import noted, protocol, spools
from ems.node.agent.attempt import Attempt
from ems.node.agent.config import AgentConfig
from ems.node.agent.courier import FIRST_PAUSE_S, LONGEST_PAUSE_S
from ems.node.agent.crew import Crew
from ems.node.agent.endings import GOES_ON, seconds_left
from ems.node.agent.lock import agent_name, take_lock
from ems.node.agent.programs_attempt import ProgramsAttempt
from ems.node.agent.sweep_attempt import SweepAttempt
from ems.node.agent.unpack import verify
from ems.node.mailbox import database as mailboxes

__all__ = ["Agent", "AgentConfig", "agent_name"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class Agent:
    """One life of an agent. SIGTERM and SIGINT make it stop in order; SIGHUP, a closed terminal, does not."""

    def __init__(
        self,
        run_dir: Path,
        crew: Crew | None = None,
        environment: Path | None = None,
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`crew`: has workers join a sweep from other machines, where the place has such.

        `environment`: the folder of the experiment's, where that differs from machine to machine. `variables`: of this
        machine, that the job is to see.
        """
        self._dir, self._crew = run_dir.resolve(), crew
        self._config = replace(AgentConfig.read(self._dir), variables=variables)
        if environment:
            self._config = replace(self._config, environment=str(environment))
        self._stopping = False

    def run(self) -> int:
        """0 if there was nothing to do, or the run's end is in the row; 1 if it could not be written.

        GOES_ON if that end is that it was told to stop, so that another run is to go on.
        """
        self._handle_signals()
        with closing(self._connect()) as database:
            lock = take_lock(self._dir, lambda: self._state(database), self._config.lease_s)
            if lock is None:
                log.info("Another agent is at work here.")
                return 0
            with lock:
                attempt = self._patiently(lambda: self._claim(database))
                if attempt is None:
                    return 0
                return (GOES_ON if attempt.goes_on else 0) if attempt.run() else 1

    def _claim(self, database: Database) -> Attempt | None:
        """The right to run, taken; None if there is nothing to run."""
        id = self._config.experiment_id
        row = database.experiment(id)
        if row is None:
            log.info("Experiment %s has no row.", id)
            return None
        if row.wanted_attempt > row.attempt:
            noted.forget(self._dir)  # of an attempt that is over: a new one is wanted
        self._require_bundle(row)
        claim = database.claim(id, agent=agent_name(self._dir), lease_s=self._config.lease_s)
        if claim:
            return self._attempt(claim, row, seconds_left(claim, database))
        if row.agent == agent_name(self._dir) and row.state is State.EXPIRED and row.machines:
            log.info("The deadline passed before all of run %d was stored.", row.attempt)
            unreleased = Claim(id, row.attempt, row.registration.results_table, row.deadline_at)
            return self._attempt(unreleased, row, deadline_s=0)
        log.info("Experiment %s is not to be claimed.", id)
        return None

    def _require_bundle(self, row: Experiment) -> None:
        """ProvenanceError, before the run is claimed, if there is something to compute and the bundle is not whole.

        Or if what is there is of another version of EMS, with which this one cannot speak.
        """
        only_storing = row.cancel_requested or row.state.finished or noted.read(self._dir)
        if not only_storing:
            verify(Path(self._config.bundle))
            protocol.require_driver(Path(self._config.bundle))
        protocol.require_batches(path for _, path in spools.left(self._dir))

    def _attempt(self, claim: Claim, row: Experiment, deadline_s: float) -> Attempt:
        return _kind(json.loads(row.registration.spec)["job"])(
            self._dir,
            self._config,
            claim,
            row,
            self._connect,
            told_to_stop=lambda: self._stopping,
            deadline_s=deadline_s,
            crew=self._crew,
        )

    def _connect(self) -> Database:
        if self._config.database == mailbox.URL:
            return mailboxes.connect(self._dir)
        return connect(self._config.database, Path(self._config.root))

    def _state(self, database: Database) -> State | None:
        row = self._patiently(lambda: database.experiment(self._config.experiment_id))
        return row.state if row else None

    def _patiently(self, ask: Callable[[], T]) -> T | None:
        """The database's answer, however long it is away; None if the agent is told to stop first."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while not self._stopping:
            try:
                return ask()
            except DatabaseUnavailable as error:
                log.warning("The database is away, waiting for it: %s", error)
            pauses.wait(lambda: self._stopping)
        return None

    def _handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, _go_on)  # not SIG_IGN, which the job would inherit

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stopping = True


def _kind(job: Mapping[str, Any]) -> type[Attempt]:
    """What runs a job of a spec."""
    if job.get("propose"):  # which needs much that others do without
        from ems.node.agent.rounds_attempt import ProgramRoundsAttempt, RoundsAttempt

        return RoundsAttempt if "function" in job else ProgramRoundsAttempt
    if "function" in job:
        return SweepAttempt
    return ProgramsAttempt if "sweep" in job else Attempt


def _go_on(number: int, frame: FrameType | None) -> None:
    """A closed terminal never ends a run."""
