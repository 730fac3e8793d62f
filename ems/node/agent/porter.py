"""The porter: the agent's thread that brings what jobs left in EMS_OUTPUT_DIR into the lab's store.

First the content is stored, then its row is written, then the file is removed here: killed at any moment, nothing is
lost, and what is repeated changes nothing.
"""

from __future__ import annotations

import json
import logging
import mimetypes
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Protocol

from ems.base.backoff import Backoff
from ems.base.errors import DatabaseUnavailable, EmsError, FencedOut
from ems.databases import Claim, Output
from ems.node.agent.taken import Found, Taken
from ems.stores import Interrupted, Source, Store, Unreadable

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LOOK_S = 0.5
AT_ONCE = 8  # files: small ones wait for the disk or the network, one by one
CHUNK = 500  # files, until their rows are written
CHANGED_TRIES, CHANGED_PAUSE_S = 3, 1.0  # of a file that changes while it is read
TYPES = mimetypes.MimeTypes()  # Python's own list, the same on every machine
for kind, ending in (("application/vnd.apache.parquet", ".parquet"), ("application/x-npy", ".npy")):
    TYPES.add_type(kind, ending)

log = logging.getLogger(__name__)


class Recorder(Protocol):
    """A database, as far as it is needed here."""

    def put_outputs(self, claim: Claim, outputs: Sequence[Output]) -> None:
        """As Database."""

    def close(self) -> None:
        """As Database."""


class Porter(threading.Thread):
    """Carries what is there, until it is told to `finish` and nothing is left, or to `stop`.

    While store or database are away it waits, for ever. `leave`: is given what nobody can read or store, with the
    reason; `told`: hears what people should know.
    """

    def __init__(
        self,
        taken: Taken,
        claim: Claim,
        store: Callable[[], Store],
        connect: Callable[[], Recorder],
        leave: Callable[[Found, str], None],
        told: Callable[[str], None],
    ) -> None:
        super().__init__(name="porter", daemon=True)
        self._taken, self._claim, self._make_store, self._connect = taken, claim, store, connect
        self._leave, self._told = leave, told
        self._wake, self._finishing, self._stopping = threading.Event(), False, False
        self._refused: EmsError | None = None  # by the store, just now
        self.trouble = ""  # what it waits for
        self.progressed = time.monotonic()  # when it last stored something, or had nothing to store
        self.is_done = False  # all was stored

    def finish(self) -> None:
        """Nothing more will be made ready."""
        self._finishing = True
        self._wake.set()

    def stop(self) -> None:
        """End soon: whoever comes next goes on."""
        self._stopping = True
        self._wake.set()

    def run(self) -> None:
        with ThreadPoolExecutor(AT_ONCE, "porter") as pool:
            while not (self._stopping or self.is_done):
                is_last = self._finishing  # before it is looked
                if self._taken.waiting():
                    self._carry_all(pool)
                else:
                    self.progressed = time.monotonic()
                    self.is_done = is_last
                self._wake.wait(0 if self._finishing else LOOK_S)
                self._wake.clear()

    def _carry_all(self, pool: ThreadPoolExecutor) -> None:
        """What is there now, however long that takes."""
        pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        with closing(self._connect()) as database:
            while not self._stopping and self._taken.waiting():
                try:
                    self._record_noted(database)
                    self._pass(pool, self._make_store(), database, pauses)
                    continue
                except FencedOut as error:
                    log.warning("Fenced out: %s", error)
                    self._stopping = True
                except Interrupted:
                    continue
                except DatabaseUnavailable as error:
                    log.warning("The database is away, files wait for it: %s", error)
                except (EmsError, OSError) as error:
                    self._wait_for(str(error))
                pauses.wait(lambda: self._stopping)

    def _record_noted(self, database: Recorder) -> None:
        """What is stored already."""
        for file in self._taken.noted():
            found = [Output(**each) for each in json.loads(file.read_text(encoding="utf-8"))]
            database.put_outputs(self._claim, found)
            file.unlink()
            self.progressed = time.monotonic()

    def _pass(self, pool: ThreadPoolExecutor, store: Store, database: Recorder, pauses: Backoff) -> None:
        """Once through all that is there."""
        for chunk in self._taken.chunks(CHUNK):
            self._refused = None
            self._carry(pool, store, database, chunk)
            pauses.reset()
            self.progressed = time.monotonic()
            if self.trouble:
                self.trouble = ""
                self._told("The lab's store takes files again.")

    def _carry(self, pool: ThreadPoolExecutor, store: Store, database: Recorder, chunk: Sequence[Found]) -> None:
        """Store these; what could be is recorded, also if the store refuses others."""
        futures = [pool.submit(self._stored, store, found) for found in chunk]
        wait(futures)
        ended = list(zip(chunk, futures, strict=True))
        stored = [(found, output) for found, future in ended if (output := _output(future))]
        if stored:
            database.put_outputs(self._claim, [output for _, output in stored])
            for found, _ in stored:
                found.path.unlink(missing_ok=True)
        for future in futures:
            future.result()

    def _stored(self, store: Store, found: Found) -> Output | None:
        """None if nobody can read or store it."""
        for number in range(CHANGED_TRIES):
            if self._refused:
                raise self._refused
            try:
                with Source(found.content(), lambda: self._stopping) as source:
                    content = store.put(source)
                kind = TYPES.guess_type(found.name)[0] or "application/octet-stream"
                return Output(found.point, found.name, content.digest, content.size, kind)
            except Unreadable as error:
                problem = error.message
            except EmsError as error:
                self._refused = error
                raise
            if number + 1 < CHANGED_TRIES:
                time.sleep(CHANGED_PAUSE_S)
        self._leave(found, problem)
        return None

    def _wait_for(self, problem: str) -> None:
        log.warning("Files wait to be stored: %s", problem)
        if problem != self.trouble:
            self._told(f"Files wait to be stored: {' '.join(problem.split())}")
        self.trouble = problem


def _output(future: Future[Output | None]) -> Output | None:
    return None if future.exception() else future.result()
