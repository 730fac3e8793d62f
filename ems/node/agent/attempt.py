"""One run of a command in a run folder, from the bundle to the release."""

from __future__ import annotations

import json
import logging
import os
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.messages import last_line, raised
from ems.databases import Claim, Database, Experiment, Outcome, State
from ems.databases.states import used_up_error
from ems.node.agent import leftovers, noted, packages, platform, spools
from ems.node.agent.config import AgentConfig, is_told_to_listen
from ems.node.agent.courier import Courier, explain
from ems.node.agent.crew import Crew
from ems.node.agent.endings import after, failed, stopped
from ems.node.agent.inputs import lay_out_inputs
from ems.node.agent.job_log import JobLog, say_in_log
from ems.node.agent.noted import Noted
from ems.node.agent.outputs import Outputs
from ems.node.agent.room import room
from ems.node.agent.spools import Spools
from ems.node.agent.tidying import Tidying
from ems.node.agent.unpack import unpack
from ems.node.job import checkpoints
from ems.node.job.declared import Declared
from ems.node.job.keeper import Ended, Job, kill_leftovers
from ems.node.job.own_files import begin
from ems.node.job.reading import reader_of
from ems.node.job.results_file import ResultsError
from ems.node.job.results_reader import ResultsReader
from ems.node.job.variables import CHECKPOINT, job_environment
from ems.spool.batch import Batch
from ems.sweep import placeholders

POLL_S = 0.1
FLUSH_S = 5.0  # for an agent that was told to stop
SIGNALLED_S = 2.0  # in which a signal that ended the job has reached this process, if it was meant for all
PROBE_S = 5.0  # that a job's end waits for what it ran on
SAID_CHARACTERS = 300  # of the line that says what went wrong, in an error
CANCELLED = "Cancelled on request."

log = logging.getLogger(__name__)


class Attempt:
    """Runs the job, brings its results into the spool, watches for reasons to stop, and has the courier release.

    `row`: the experiment's, from before the claim. `told_to_stop`: whether the agent got SIGTERM. `deadline_s`: seconds
    from now to the deadline.
    Nothing that a run before has left is cleared away until all is there that the job needs.
    """

    def __init__(
        self,
        run_dir: Path,
        config: AgentConfig,
        claim: Claim,
        row: Experiment,
        connect: Callable[[], Database],
        *,
        told_to_stop: Callable[[], bool],
        deadline_s: float,
        crew: Crew | None = None,
    ) -> None:
        self._dir, self._config, self._claim, self._before = run_dir, config, claim, row
        self._spec: Mapping[str, Any] = json.loads(row.registration.spec)
        self._declared = Declared.of(self._spec["results"])
        self._log = JobLog(run_dir, claim.attempt)
        self._grace_s = crew.grace_s if crew else config.grace_s
        self._crew, self._began_at = crew, datetime.now(UTC)
        self._rows = 0  # that the job has written, as far as they were spooled
        self._connect, self._told_to_stop = connect, told_to_stop
        self._deadline = time.monotonic() + deadline_s
        self._results, self._parameters = run_dir / "results", run_dir / "parameters.json"
        self._outputs = Outputs(run_dir, config, claim, connect)
        self._left = self._left_to_store()
        self._spools = self._open_spools()
        self._courier = Courier(connect, claim, self._spools, config.lease_s, config.beat_s)
        self._courier.platform = lambda: platform.of_run(run_dir, config.commit, crew.modules if crew else ())
        self._probe: platform.Probe | None = None
        self._reader: ResultsReader | None = None
        self._checkpoint: Path | None = None  # the job's, while it runs

    def _left_to_store(self) -> Outcome | None:
        """How this run will end, if nothing is left to do but to store what was left in the folder."""
        if not self._follows():
            noted.forget(self._dir)
        if before := noted.read(self._dir):
            return before.outcome
        cancelled = stopped(State.CANCELLED, CANCELLED) if self._claim.cancel else None
        return self._overdue_at_once() or cancelled

    def _follows(self) -> bool:
        """Whether the run just before this one was in this folder too: else what is left here may be outdated."""
        last = max((of for of, _ in spools.left(self._dir)), default=spools.UNKNOWN)
        return self._claim.attempt - self._before.attempt <= 1 and last == self._before.attempt > 0

    def _open_spools(self) -> Spools:
        """A command's rows belong together: those of the run just before count as this run's, others not at all."""
        if not self._follows():
            spools.remove(self._earlier())
        self._outputs.take_over(self._before.attempt)
        left = self._earlier() if self._left else []
        found = Spools(self._dir, self._claim.attempt, left, continues=True)
        before = noted.read(self._dir)
        if before and not self._has_all_rows(before.rows, found):
            log.warning("Rows of the job are lost, so it runs again.")
            noted.forget(self._dir)
            self._left = self._left_to_store()
            return Spools(self._dir, self._claim.attempt, [], continues=True)
        self._rows = before.rows if before else 0
        return found

    def _earlier(self) -> list[tuple[int, Path]]:
        """What runs left here. The database, set back, may never have heard of the last of them."""
        newest = self._before.attempt
        return [(of if of <= newest else spools.UNKNOWN, path) for of, path in spools.left(self._dir)]

    def _has_all_rows(self, rows: int, found: Spools) -> bool:
        """Whether database and spool have all that the job wrote: not after damage, or if the database was set back."""
        waiting = found.waiting_rows()
        return waiting >= 0 and self._before.rows_stored + waiting >= rows

    goes_on = False  # whether it was stopped in order, for the next run to go on

    def run(self) -> bool:
        """Whether the claim was released, or is somebody else's now."""
        outcome = self._guarded(self._make_ready) or self._left
        self._courier.start()
        self._outputs.start()
        outcome = outcome or self._guarded(self._work) or failed("The job ended without an outcome.")
        return self._conclude(outcome)

    def _guarded(self, step: Callable[[], Outcome | None]) -> Outcome | None:
        """The step's outcome; an error is one, too."""
        try:
            return step()
        except Exception as error:  # whatever it is, the row must report it
            log.exception("The attempt failed")
            return failed(explain(error, self._dir), log_tail=self._log.tail())

    def _make_ready(self) -> Outcome | None:
        """End what an earlier agent left behind; an outcome if there is a reason to stop."""
        kill_leftovers(self._dir)
        return None

    def _begin(self) -> None:
        """All is there that the job needs: nothing that was there before counts any more."""
        spools.remove((of, folder) for of, folder in self._earlier() if folder != self._spools.own.folder)
        aside.remove(self._results)
        self._output.unlink(missing_ok=True)
        with room(self._dir):
            self._outputs.begin()
            self._results.mkdir()
            self._checkpoint = self._take_checkpoint()
            self._write(Batch(array("q"), array("q"), (), replaces=(0,)))

    def _take_checkpoint(self) -> Path:
        """Where nodes share a folder, a job of another node may live on unseen."""
        shared = self._crew is not None and self._crew.shares_files
        return checkpoints.take(self._dir, self._claim.attempt, alone=not shared)

    def _work(self) -> Outcome:
        job = self._start()
        assert self._reader
        try:
            return self._follow(job, self._reader)
        finally:
            job.stop()
            if self._checkpoint:
                checkpoints.put_back(self._checkpoint)

    @property
    def _output(self) -> Path:
        """What the job prints on standard output, where that is rows."""
        return self._dir / f"stdout.{self._declared.stdout}"

    def _make_reader(self, working: Path) -> ResultsReader:
        for name in begin(self._declared, working):
            say_in_log(self._dir, f"{name} of the code was taken away, as the job is to write it")
        return reader_of(self._results, working, self._output, self._declared)

    def _start(self) -> Job:
        unpacked = self._dir / "code"
        with room(self._dir):
            leftovers.keep(self._dir)  # of a run that nobody ended
            unpack(Path(self._config.bundle), unpacked)
            if self._config.inputs:
                lay_out_inputs(self._config.inputs, self._dir / "inputs")
            self._begin()
            job = self._spec["job"]
            variables = self._variables(job)
            command = self._command(job, unpacked)
            self._log.begin()
            leftovers.begin(self._dir, self._claim.attempt)
            self._reader = self._make_reader(unpacked / "code")
        log.info("Attempt %d: %s", self._claim.attempt, command)
        platform.forget(self._dir)
        started = self._process(command, unpacked / "code", variables)
        self._probe = self._ask(unpacked / "ems.zip", variables)
        return started

    def _variables(self, job: Mapping[str, Any]) -> dict[str, str]:
        """What programs of the experiment's environment see."""
        ems = {
            "EMS_EXPERIMENT_ID": self._config.experiment_id,
            "EMS_PARAMETERS": str(self._parameters),
            "EMS_RESULTS_DIR": str(self._results),
            **({CHECKPOINT: str(self._checkpoint)} if self._checkpoint else {}),
            **self._outputs.variables,
            **({"EMS_INPUT_DIR": str(self._dir / "inputs")} if self._config.inputs else {}),
        }
        built = Path(self._config.environment)
        given = self._crew.variables if self._crew else self._config.variables
        loaded = self._crew.loaded if self._crew else {}
        variables = job_environment(built, os.environ, job["threads"], {**given, **ems}, self._spec["env"], loaded)
        return packages.added(variables, self._dir / "code", built)

    def _process(self, command: list[str], folder: Path, variables: Mapping[str, str]) -> Job:
        output = self._output if self._declared.stdout else None
        return Job(command, folder, variables, self._dir, self._grace_s, output)

    def _ask(self, ems: Path, variables: Mapping[str, str]) -> platform.Probe | None:
        """Have it found out what the job runs on."""
        return platform.Probe(Path(self._config.environment), ems, variables, self._dir) if ems.exists() else None

    def _command(self, job: Mapping[str, Any], unpacked: Path) -> list[str]:  # noqa: ARG002
        """The words of the command, and the files that it needs."""
        self._parameters.write_text(json.dumps(job["parameters"]), encoding="utf-8")
        return [placeholders.in_plain(word, str(self._results)) for word in job["command"]]

    def _follow(self, job: Job, reader: ResultsReader) -> Outcome:
        while True:
            ended = job.wait(0)  # before reading: so what it wrote before its end is read
            if ended:
                return self._ended(ended, reader)
            halted = self._halted()
            if halted:
                job.stop()
                self._read_on(reader, False, after(FLUSH_S, halted))
                return halted
            if self._spool_is_full() or not self._read(reader, ended=False):
                job.wait(POLL_S)

    def _ended(self, ended: Ended, reader: ResultsReader) -> Outcome:
        if halted := self._ended_together(ended):
            self._read_on(reader, False, after(FLUSH_S, halted))
            return halted
        halted = self._read_on(reader, ended.code == 0, self._halted)
        if ended.code == 0:
            return halted or Outcome(State.SUCCEEDED, 1, 0, exit_code=0)
        return failed(self._said(ended), ended.code, self._log.tail())

    def _ended_together(self, ended: Ended) -> Outcome | None:
        """What a signal to all processes, as at a shutdown or a preemption, comes to: the job did not fail, and it did
        not succeed either, whatever its exit code is: programs that save what they have often end with 0."""
        give_up_at = time.monotonic() + (SIGNALLED_S if ended.was_terminated else 0.0)
        while not self._told_to_stop() and time.monotonic() < give_up_at:
            time.sleep(POLL_S)
        return self._halted() if self._told_to_stop() else None

    def _said(self, ended: Ended, of: str = "") -> str:
        """What the job said of its error, before how it ended.

        What dies of an exception ends with exit code 1, in Python, R and Octave: one that ends otherwise had caught
        those in its log.
        """
        text = self._log.end()
        said = (raised(text) if ended.code == 1 else last_line(text))[:SAID_CHARACTERS]
        if not said:
            return f"{of}{ended}"
        return f"{said} ({of}{ended})" if ended.code > 0 else f"{of}{ended}; the last line of its log: {said}"

    def _halted(self) -> Outcome | None:
        if is_told_to_listen(self._dir):
            self._courier.listen()
        orders = self._courier.orders
        if self._courier.fenced:
            return stopped(State.LOST, "Another attempt holds the experiment.")
        if self._courier.failure:
            return failed(self._courier.failure, log_tail=self._log.tail())
        if orders and orders.cancel:
            return stopped(State.CANCELLED, CANCELLED)
        if self._told_to_stop():
            return self._overdue() or stopped(State.LOST, "The agent was told to stop (SIGTERM).")
        return self._overdue()

    def _overdue(self) -> Outcome | None:
        orders, until = self._courier.orders, self._claim.deadline_at
        if orders and orders.expired:
            return self._expired()
        if orders and until:  # `max_hours` may have been changed meanwhile
            moved_s = (orders.deadline_at - until).total_seconds() if orders.deadline_at else float("inf")
            return self._overdue_at_once(moved_s)
        return self._overdue_at_once()

    def _overdue_at_once(self, moved_s: float = 0.0) -> Outcome | None:
        return self._expired() if time.monotonic() >= self._deadline + moved_s else None

    def _expired(self) -> Outcome:
        registered = self._before.registration
        return stopped(State.EXPIRED, used_up_error(registered.max_hours, registered.stack))

    def _spool_is_full(self) -> bool:
        return self._spools.waiting_bytes() > self._config.spool_limit_mb * 10**6

    def _read(self, reader: ResultsReader, ended: bool) -> bool:
        batch = reader.poll(ended)
        if batch is None:
            return False
        if len(batch) or batch.replaces:
            self._write(batch)
        return True

    def _read_on(self, reader: ResultsReader, well: bool, reason: Callable[[], Outcome | None]) -> Outcome | None:
        """Read to the end, after a job that ended `well` once more what was read; or until there is an outcome.

        After a job that failed, what cannot be read is not the error that counts.
        """
        try:
            for _ in self._steps(reader, well):
                if outcome := reason():
                    log.warning("Reading was stopped: there may be more rows than the %d that were read", reader.rows)
                    return outcome
        except ResultsError as error:
            if well:
                raise
            log.warning("Not read: %s", error)
        return None

    def _steps(self, reader: ResultsReader, well: bool) -> Iterator[None]:
        while True:
            while self._read(reader, ended=well):
                yield
            if not well:
                return
            yield from reader.verified()
            if not reader.is_due:
                return

    def _write(self, batch: Batch) -> None:
        with room(self._spools.own.folder):
            self._spools.own.write(batch)
        self._rows = len(batch) + (0 if batch.replaces else self._rows)
        self._courier.wake()

    def _conclude(self, outcome: Outcome) -> bool:
        if outcome.state is not State.LOST:
            outcome = self._guarded(self._outputs.end_job) or outcome
            outcome = Tidying(self._dir, self._claim, self._declared).tidied(outcome, self._reader)
        log.info("Ended: %s %s", outcome.state, outcome.error)
        if self._crew:
            cost = self._crew.cost(self._claim.attempt, self._began_at)
            outcome = replace(outcome, cost_usd=cost.usd, cost_basis=cost.basis)
        if self._probe:
            self._probe.end(PROBE_S if outcome.state in {State.SUCCEEDED, State.FAILED} else 0.0)
        if outcome.state is State.LOST:
            self._outputs.stop()
            self._courier.finish(outcome, within_s=FLUSH_S)
            self._courier.join(2 * FLUSH_S)
            self.goes_on = self._courier.released
            return self._release()
        noted.write(self._dir, Noted(outcome, self._rows))
        stored = self._outputs.settle(outcome, self._halted)
        if stored is None:
            return self._release()
        self._courier.finish(stored)
        while self._courier.is_alive() and not self._told_to_stop():
            self._courier.join(POLL_S)
        self._courier.join(FLUSH_S)
        return self._release(succeeded=stored.state is State.SUCCEEDED)

    def _release(self, *, succeeded: bool = False) -> bool:
        if self._courier.released:
            if succeeded and not self._courier.failure:
                checkpoints.forget(self._dir)
            noted.forget(self._dir)
            self._spools.tidy()
        return self._courier.released or self._courier.fenced
