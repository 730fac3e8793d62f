"""Storing what was surveyed, under a claim as a run's: exactly once, whatever ends the command."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ems.base.backoff import Backoff
from ems.base.errors import Busy, DatabaseError, DatabaseUnavailable, EmsError, ExperimentFailed, FencedOut
from ems.base.locks import exclusive
from ems.base.messages import Say
from ems.base.private import make_folder
from ems.databases import Claim, Database, Orders, Outcome, State
from ems.lab import Lab
from ems.lab.patience import Patience
from ems.spool.batch import Batch
from ems.spool.gathering import joined

LEASE_S, BEAT_S = 30.0, 2.0
BEATS_A_LEASE = 5
ROWS_AT_ONCE, CELLS_AT_ONCE = 20_000, 1_000_000
Show = Callable[[float], None]


@contextmanager
def alone(lab: Lab, experiment_id: str, stack: str) -> Iterator[str]:
    """The name under which this folder imports an experiment, while no other process of it does; else Busy."""
    make_folder(lab.work_dir)
    lock = lab.work_dir / "imports" / f"{experiment_id}.lock"

    def refuse() -> None:
        raise Busy(f"Another command is importing {stack} just now.", f"Look at it: ems status {stack}")

    with exclusive(lock, refuse):
        yield _agent(lock)


def _agent(lock: Path) -> str:
    """The same for each process of this folder on this machine, of which the lock admits one."""
    about = lock.stat()
    here = f"{lock.resolve()} {about.st_dev} {about.st_ino}"
    return f"{socket.gethostname()}:import-{hashlib.sha256(os.fsencode(here)).hexdigest()[:12]}"


def store(
    lab: Lab, database: Database, experiment_id: str, agent: str, batches: Iterable[Batch], keeps_order: bool, said: Say
) -> Storing:
    """Claim the experiment; what is returned stores `batches`. Busy if another machine is importing it.

    `keeps_order`: whether an earlier command has read the same rows in the same order, so that this one goes on.
    """
    claim = database.claim(experiment_id, agent=agent, lease_s=_lease_s(database))
    if claim is None:
        raise Busy("Another machine is importing the same.", "Wait for it: ems watch")
    row = database.experiment(experiment_id)
    there = row.rows_stored if row and keeps_order else 0
    return Storing(lab, database, claim, batches, there, said)


class Storing:
    """One claimed import. `there`: how many of the first rows are stored already."""

    def __init__(
        self, lab: Lab, database: Database, claim: Claim, batches: Iterable[Batch], there: int, said: Say
    ) -> None:
        self._database, self._claim, self._batches, self.there = database, claim, batches, there
        self._patience = Patience(said)
        self._lease = Lease(lab, claim)

    def run(self, rows: int, show: Show, checked: Callable[[], None], told: str) -> None:
        """Store all batches, `rows` rows, and end as succeeded; `checked` is asked before. `told`: for the log.

        What ends it otherwise is in the row: an error as failed, a request to stop as cancelled, Ctrl-C as lost.
        """
        self._lease.start()
        try:
            self._store_all(rows, show)
            checked()
            self._release(Outcome(State.SUCCEEDED, 1, 0, log_tail=told))
        except (FencedOut, DatabaseUnavailable):
            raise
        except ExperimentFailed as stopped:
            self._release(Outcome(State.CANCELLED, 0, 0, error=stopped.message))
            raise
        except EmsError as error:
            with suppress(DatabaseError):
                self._database.release(self._claim, Outcome(State.FAILED, 0, 0, error=str(error)))
            raise
        except KeyboardInterrupt:
            with suppress(DatabaseError):
                self._database.release(self._claim, Outcome(State.LOST, 0, 0, error="The import was interrupted."))
            raise
        finally:
            self._lease.end()

    def _store_all(self, rows: int, show: Show) -> None:
        if self._claim.attempt > 1 and not self.there:
            nothing: array[int] = array("q")
            self._store(Batch(nothing, nothing, (), replaces=(0,)))
        for batch in self._gathered():
            self._refuse_stop()
            last = batch.rows[-1] + 1
            if last > self.there:
                self._store(batch)
            show(last / rows)
        self._refuse_stop()

    def _gathered(self) -> Iterator[Batch]:
        """In larger batches where each call takes seconds."""
        is_dear = self._database.store_pause_s(0.0) > 0
        most = self._database.cells_at_once if is_dear else CELLS_AT_ONCE
        waiting: list[Batch] = []
        rows = cells = 0
        for batch in self._batches:
            waiting.append(batch)
            rows, cells = rows + len(batch), cells + len(batch) * (len(batch.columns) + 3)
            if cells >= most or (rows >= ROWS_AT_ONCE and not is_dear):
                yield joined(waiting)
                waiting, rows, cells = [], 0, 0
        if waiting:
            yield joined(waiting)

    def _store(self, batch: Batch) -> None:
        self._patience(lambda: self._database.store(self._claim, batch))

    def _release(self, outcome: Outcome) -> None:
        self._patience(lambda: self._database.release(self._claim, outcome))

    def _refuse_stop(self) -> None:
        if self._lease.orders and self._lease.orders.cancel:
            raise ExperimentFailed("The import was stopped on request.", "Repeat the command to go on with it.")


def _lease_s(database: Database) -> float:
    return max(LEASE_S, BEATS_A_LEASE * database.least_beat_s)


class Lease(threading.Thread):
    """Renews a claim from a connection of its own, however long a source or a batch takes."""

    def __init__(self, lab: Lab, claim: Claim) -> None:
        super().__init__(name="lease", daemon=True)
        self._lab, self._claim = lab, claim
        self._ended = threading.Event()
        self.orders: Orders | None = None

    def run(self) -> None:
        pauses = Backoff(BEAT_S, LEASE_S)
        with self._lab.database() as database:
            pause_s = max(BEAT_S, database.least_beat_s)
            while not self._ended.wait(pause_s):
                try:
                    self.orders = database.beat(self._claim, _lease_s(database))
                    pauses.reset()
                    pause_s = max(BEAT_S, database.least_beat_s)
                except DatabaseUnavailable:
                    pause_s = pauses.pause_s()
                except DatabaseError:  # fenced out: the next batch says so
                    return

    def end(self) -> None:
        """No more beats."""
        self._ended.set()
        self.join(LEASE_S)
