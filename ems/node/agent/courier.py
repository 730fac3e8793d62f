"""The courier: the agent's thread that does all work with the database."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ems.base.backoff import Backoff
from ems.base.errors import DatabaseUnavailable, EmsError, FencedOut
from ems.databases import Claim, Database, Orders, Outcome, State
from ems.node.agent.point_count import PointCount
from ems.node.agent.spools import Spools
from ems.spool.batch import Batch
from ems.spool.gathering import GATHERED_MB, gathered

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
MOST_FAILED_RELEASES = 12  # about 45 s
BEATS_A_LEASE = 5  # at least
SOON_S = 0.5  # as often as views look
FAR_S, FAR_MB = 0.1, 4.0  # where a batch takes longer to be stored, those that wait are stored together, up to so many

log = logging.getLogger(__name__)


def explain(error: Exception, run_dir: Path) -> str:
    """What an experiment's row says about an error of its agent, who works in `run_dir`."""
    if isinstance(error, EmsError):
        return str(error)
    return f"EMS failed: {type(error).__name__}: {error}. See {run_dir / 'agent.log'} on {platform.node()}."


class Courier(threading.Thread):
    """Beats, stores the spool's batches in order, hears orders, and at last releases the claim.

    Where the database wants few calls, beats are rarer, and batches are gathered for a while before they are stored;
    each time there is a beat, too. Where it is far away, those that have come meanwhile are stored together.
    While the database is away it waits, for ever; the spool grows meanwhile. Ends after the release, or when another
    attempt holds the claim (`fenced`).
    """

    def __init__(
        self, connect: Callable[[], Database], claim: Claim, spools: Spools, lease_s: float, beat_s: float
    ) -> None:
        super().__init__(name="courier", daemon=True)
        self._connect, self._claim, self._spools = connect, claim, spools
        self._lease_s, self._beat_s = lease_s, beat_s
        self._last_beat = self._next_beat = self._next_store = 0.0
        self._told = 0  # how often to listen
        self._began = time.monotonic()
        self._together_mb = 0.0
        self._hurried = False
        self._wake = threading.Event()
        self._outcome: Outcome | None = None
        self._store_until = float("inf")
        self._failed_releases = 0
        self.count: PointCount | None = None  # of a sweep: each point counts, not the job as one
        self.recount: Callable[[Database], PointCount] | None = None  # where `count` is not exact
        self.platform: Callable[[], str] = str  # what the run runs on, as far as it is known by now
        self.stored: Callable[[Batch], None] = _nothing  # told of each batch that is stored; OSError is logged
        self._described = ""
        self.orders: Orders | None = None  # the last ones heard
        self.failure = ""  # why batches cannot be stored
        self.fenced = False
        self.released = False

    def wake(self) -> None:
        """A batch was spooled."""
        self._wake.set()

    def hurry(self) -> None:
        """Store what is spooled without gathering more."""
        self._hurried = True
        self._wake.set()

    def listen(self) -> None:
        """Hear orders now, and not with the next beat."""
        self._told += 1
        self._next_beat = 0.0
        self._wake.set()

    def finish(self, outcome: Outcome, within_s: float = float("inf")) -> None:
        """Store what is spooled, for `within_s` at most, and release."""
        self._store_until = time.monotonic() + within_s
        self._outcome = outcome
        self._wake.set()

    def run(self) -> None:
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        with closing(self._connect()) as database:
            self._beat_s = max(self._beat_s, database.least_beat_s)
            self._lease_s = max(self._lease_s, BEATS_A_LEASE * database.least_beat_s)
            while not self.released and not self.fenced and self._failed_releases < MOST_FAILED_RELEASES:
                if self._try(database):
                    pauses.reset()
                else:
                    pauses.wait()

    def _try(self, database: Database) -> bool:
        """One round; False if the database did not do what it was asked."""
        try:
            self._round(database)
        except DatabaseUnavailable as error:
            log.warning("The database is away, going on without: %s", error)
            return False
        except FencedOut as error:
            log.warning("Fenced out: %s", error)
            self.fenced = True
        except Exception as error:  # whatever it is, the row must report it
            log.exception("Storing failed")
            self.failure = self.failure or explain(error, self._spools.own.folder.parent)
            self._failed_releases += self._outcome is not None
            return False
        return True

    def _round(self, database: Database) -> None:
        outcome = self._outcome  # before the spool is looked at: what was spooled before the end is stored
        self._beat(database)
        self._store_all(database)
        if outcome:
            self._release(database, outcome)
        else:
            self._wake.wait(max(0.0, self._next_round() - time.monotonic()))
            self._wake.clear()

    def _next_round(self) -> float:
        return min(self._next_beat, self._next_store) if self._spools.waiting() else self._next_beat

    def _beat(self, database: Database) -> None:
        if time.monotonic() < self._next_beat:
            return
        told = self._told
        counts = (self.count.done, self.count.given_up) if self.count else (0, 0)
        self.orders = database.beat(self._claim, self._lease_s, *counts)
        self._last_beat = time.monotonic()
        self._next_beat = self._last_beat + self._beat_s
        if told != self._told:  # meanwhile
            self._next_beat = 0.0
        self._describe(database)

    def _describe(self, database: Database) -> None:
        """What the run runs on, where that is news: no fault in it fails the run."""
        found = self._described
        try:
            found = self.platform()
            if found != self._described:
                database.describe(self._claim, found)
        except (DatabaseUnavailable, FencedOut):
            raise
        except Exception:
            log.exception("The platform was not recorded")
        self._described = found

    def _store_all(self, database: Database) -> None:
        pause_s = database.store_pause_s(time.monotonic() - self._began)
        if self.failure or not self._is_due():
            return
        for attempt, waiting in self._spools.batches():
            for paths, batch in gathered(waiting, GATHERED_MB if pause_s else self._together_mb):
                if time.monotonic() > self._store_until:
                    return
                self._store(database, attempt, batch)
                self._next_store = time.monotonic() + pause_s
                for path in paths:
                    path.unlink()  # at last: who finds the spool empty may rely on the count
                soon = 0.0 if pause_s else self._last_beat + SOON_S
                self._next_beat = min(self._next_beat, soon)  # who sees new rows is to see the points counted
                self._beat(database)
        self._hurried = False

    def _store(self, database: Database, attempt: int, batch: Batch) -> None:
        """What an earlier run left may count in part: then the database alone knows how many points there are."""
        began = time.monotonic()
        database.store(self._claim, batch, attempt)
        self._together_mb = FAR_MB if time.monotonic() - began > FAR_S else 0.0
        if self.count and attempt == self._claim.attempt:
            self.count.add(batch)
        try:
            self.stored(batch)
        except OSError:
            log.exception("What points had kept was not removed")

    def _is_due(self) -> bool:
        now = time.monotonic()
        full = self._next_store > now and self._spools.waiting_bytes() > GATHERED_MB * 10**6
        return full or now >= self._next_store or self._hurried or self._outcome is not None

    def _release(self, database: Database, outcome: Outcome) -> None:
        if self.failure and outcome.state is State.SUCCEEDED:
            outcome = replace(outcome, state=State.FAILED, error=self.failure, points_done=0, points_failed=1)
        if self.recount:
            self.count = self.recount(database)
        if self.count:
            outcome = replace(outcome, points_done=self.count.done, points_failed=self.count.failed)
        self._describe(database)
        database.release(self._claim, outcome)
        self.released = True
        log.info("Released: %s %s", outcome.state, outcome.error)


def _nothing(batch: Batch) -> None:
    """Of one that is stored."""
