"""Runs of a mailbox, replayed into the lab's database: each of their calls once more, as of the moment of the first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ems.base.errors import DatabaseError
from ems.base.messages import counted, plain
from ems.databases import RETRYABLE, Claim, Outcome, Output, State, reuse, rounds, rules
from ems.databases.pulled import Pulling
from ems.databases.states import ELSEWHERE_S, Row, experiment_of, is_held
from ems.lab import outputs
from ems.node.agent.point_count import PointCount
from ems.node.mailbox.folder import parts_of
from ems.spool.batch import Batch
from ems.sweep import Sweep

SAME_CLOCK_S = 2.0  # what two clocks may differ by that agree
SET_BACK = (
    "{} that the place had computed are not in the lab's database, as if that were an older copy: they are computed "
    "again."
)

GONE = (
    "{} of EMS_OUTPUT_DIR were removed or damaged at the place before they were fetched. The rows are complete; "
    "another `work_dir` of the place may keep files longer."
)
MOST_TOLD = 3


class PulledRuns:
    """Of one experiment. Whatever is repeated changes nothing.

    `answer`: of `ems.node.mailbox.exchange`, which was `asked` at that moment.
    """

    def __init__(self, database: Pulling, experiment_id: str, answer: Mapping[str, Any]) -> None:
        self._database, self._id, self._answer = database, experiment_id, answer
        self._runs: Sequence[Mapping[str, Any]] = answer["runs"]
        self.has_changed_points = False
        """Whether the database lacks what was fetched before, or has what was copied from elsewhere."""
        there, now, about = datetime.fromisoformat(answer["now"]), datetime.now(UTC), timedelta(seconds=SAME_CLOCK_S)
        agrees = answer["asked"] - about <= there <= now + about
        self._ahead = timedelta() if agrees else now - there

    @property
    def _row(self) -> Row:
        row = self._database.row(self._id)
        assert row
        return row

    def _then(self, moment: str) -> Pulling:
        """The database as of a moment there."""
        return self._database.at(min(datetime.fromisoformat(moment) + self._ahead, datetime.now(UTC)))

    # Batches

    def store(self, name: str, batch: Batch) -> Claim | None:
        """Store what the mailbox has under this name; by which run, None if there is none that may.

        DatabaseError, as of `Database.store`: the run is to `fail` by it.
        """
        attempt, _, of = parts_of(name)
        claim = self._claimed(attempt)
        if claim:
            self._database.store(claim, batch, of)
        return claim

    def put_outputs(self, attempt: int, outputs: Sequence[Output]) -> bool:
        """Record files that run `attempt` left, and that the lab's store has; False if there is no run that may."""
        claim = self._claimed(attempt)
        if claim:
            self._database.put_outputs(claim, outputs)
        return claim is not None

    def is_over(self, attempt: int) -> bool:
        """Whether run `attempt` has ended there."""
        return any(run["attempt"] > attempt or run["outcome"] for run in self._runs if run["attempt"] >= attempt)

    def _claimed(self, attempt: int) -> Claim | None:
        """By which run that is stored which run `attempt` has stored there."""
        self._catch_up(attempt)
        if self._row["run_state"] != State.RUNNING:  # ended here, as by `ems stop`: a run that follows has it stored
            self._catch_up(next((run["attempt"] for run in self._runs if run["attempt"] > self._row["attempt"]), 0))
        row = self._row
        return rules.claim_of(row) if row["run_state"] == State.RUNNING else None

    def fail(self, error: DatabaseError) -> None:
        """The run that stores now has failed: a batch was refused."""
        row = self._row
        outcome = Outcome(State.FAILED, row["points_done"], max(1, row["points_failed"]), error=str(error))
        self._database.release(rules.claim_of(row), outcome)

    # Claims

    def _catch_up(self, attempt: int) -> None:
        """Have the database know of all runs up to this one, each ended as it ended there."""
        before: Mapping[str, Any] | None = None
        for run in self._runs:
            if run["attempt"] > attempt:
                return
            if self._row["attempt"] < run["attempt"]:
                if before:
                    self._end(before, followed=True)
                self._claim(run)
                self._reuse()
            before = run

    def _claim(self, run: Mapping[str, Any]) -> None:
        """One run after the other, until the database has this one."""
        then, tries = self._then(run["claimed_at"]), 0
        while (row := self._row)["attempt"] < run["attempt"]:
            state = experiment_of(row).state
            if state in RETRYABLE:  # ended here before this run was known
                self._database.reopen(self._id)
            elif is_held(row):
                then.beat(rules.claim_of(row), 0.0, row["points_done"], row["points_failed"])
            claim = then.claim(self._id, agent=run["agent"], lease_s=ELSEWHERE_S)
            if claim and state is State.CANCELLED:
                self._database.request_cancel(self._id)
            tries = 0 if claim else tries + 1
            if tries > 1:
                problem = f"Run {run['attempt']} of {row['stack']} is under way at its place, but {state} here."
                raise DatabaseError(problem, f"Compare: ems status {row['stack']}; ems logs {row['stack']}")

    def _end(self, run: Mapping[str, Any], *, followed: bool = False) -> None:
        """Release a run as it was released there. `followed`: there was another one later."""
        row = self._row
        if row["attempt"] != run["attempt"] or row["run_state"] != State.RUNNING:
            return
        said = run["outcome"]
        if said is None:
            self._beat(run, row)
            return
        outcome = Outcome(**{**said, "state": State(said["state"])})
        if outcome.state in {State.SUCCEEDED, State.PILOTED}:
            self._reuse()
            lacking = self._lacking(outcome)
            if followed or lacking:
                self.has_changed_points = True
                outcome = replace(outcome, state=State.LOST, error=SET_BACK.format(lacking or "Points"))
            elif gone := self._answer["lost"]:
                outcome = replace(outcome, state=State.FAILED, error=GONE.format(_listed(gone)))
        self._then(run["finished_at"]).release(rules.claim_of(row), outcome)

    def _beat(self, run: Mapping[str, Any], row: Row) -> None:
        """As the last one there; the lease is over if it is over there."""
        lives = datetime.fromisoformat(run["lease_until"]) > datetime.fromisoformat(self._answer["now"])
        done, failed = self._answer["points_done"], self._answer["points_failed"]
        if self._answer["left"] or run is not self._runs[-1]:  # so they are not here yet
            done, failed = row["points_done"], row["points_failed"]
        self._then(run["heartbeat_at"]).beat(rules.claim_of(row), ELSEWHERE_S if lives else 0.0, done, failed)

    def _lacking(self, outcome: Outcome) -> str:
        """What the place has stored, and the database has not; "" if there is nothing."""
        row = self._row
        if not outputs.has_points(experiment_of(row).registration):
            return _more("row", self._answer["rows_stored"] - row["rows_stored"])
        counts = dict.fromkeys(("stored", "empty", "failed", "due"), 0)
        for state, points in self._database.points(self._id):
            counts[state] += len(points)
        done, failed = counts["stored"] + counts["empty"], counts["failed"] + counts["due"]
        return _more("point", max(0, outcome.points_done - done) + max(0, outcome.points_failed - failed))

    # Points of earlier experiments

    def _reuse(self) -> None:
        """Copy those that the place was told not to compute: `offered` says which."""
        row = self._row
        registration = experiment_of(row).registration
        if row["run_state"] != State.RUNNING or not outputs.has_points(registration):
            return
        if reuse.copy(self._database, rules.claim_of(row), registration, _done(self._database, row), lambda: None):
            self.has_changed_points = True

    # The newest run

    def conclude(self, *, has_more: bool) -> None:
        """All that was sent is stored: bring the newest run to where it stands there, unless there is more to come."""
        if has_more:
            self._end_lost()
            return
        for run in self._runs[-1:]:
            self._catch_up(run["attempt"])
            self._describe(run)
            self._end(run)
        self._end_lost()

    def _describe(self, run: Mapping[str, Any]) -> None:
        row = self._row
        news = run["platform"] and run["platform"] != row["platform"]
        if news and row["attempt"] == run["attempt"] and row["run_state"] == State.RUNNING:
            self._database.describe(rules.claim_of(row), run["platform"])

    def _end_lost(self) -> None:
        """A run that the database has and the mailbox has not is lost, as the folder there was removed."""
        row = self._row
        if is_held(row) and row["attempt"] not in {run["attempt"] for run in self._runs}:
            self._database.beat(rules.claim_of(row), 0.0, row["points_done"], row["points_failed"])


def offered(database: Pulling, row: Row) -> Iterator[range]:
    """Points that earlier experiments have: they are copied once a run begins, so that its place leaves them alone."""
    registration = experiment_of(row).registration
    sources = database.reusable(registration) if outputs.has_points(registration) else []
    if not sources:
        return
    sweep, done = Sweep.of(rounds.first_grids(registration)), _done(database, row)
    for source in sources:
        for _, points in reuse.reusable_points(database, source, sweep, done):
            yield points


def _done(database: Pulling, row: Row) -> bytearray:
    """The bitmap of the points that are done, or left out."""
    registration = experiment_of(row).registration
    count = PointCount(registration.points_total, left_out=reuse.left_out(registration))
    for state, points in database.points(registration.id):
        count.know(points, state)
    return count.bits


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - MOST_TOLD} more" if len(names) > MOST_TOLD else ""
    return f"{counted(len(names), 'file')} ({', '.join(map(plain, names[:MOST_TOLD]))}{more})"


def _more(what: str, count: int) -> str:
    return counted(count, what) if count > 0 else ""
