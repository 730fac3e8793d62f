"""What the job of an experiment wrote to its standard output and error."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator

from ems import clusters
from ems.base.errors import DatabaseError, DatabaseUnavailable, EmsError, Unreachable, UserError
from ems.base.messages import Say, quiet
from ems.databases import Experiment
from ems.lab import Lab
from ems.lab.patience import Patience, look_s
from ems.node.job.log import LEFT_OUT

POLL_S = 0.5


def read(lab: Lab, experiment: Experiment, remark: Say, *, follow: bool) -> Iterator[str]:
    """The log in pieces of text; with `follow`, until the experiment is finished, also while the database is away, as
    `remark` is told.

    Of a log that is out of reach, its end as the row has it. If the row has none: Unreachable while the place does not
    answer, UserError as the log is on another machine, DatabaseError if nothing has run yet.
    """
    log = _Log(lab, experiment, remark if follow else quiet)
    finished = _Finished(lab, experiment, remark)
    start, text = 0, codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        last = not follow or finished()  # before reading: so what it wrote before its end is read
        while piece := log(start):
            yield text.decode(piece)
            start += len(piece)
        if piece == b"" and start and not log(start - 1):  # it was shortened since
            start = _left_out(log)
            continue
        if last:
            break
        time.sleep(POLL_S)
    if piece is None and not start:
        yield _kept(experiment, log.away)
    elif log.away:
        raise log.away


class _Log:
    """The log at its place. `away`: why that did not answer when it was asked last."""

    def __init__(self, lab: Lab, experiment: Experiment, remark: Say) -> None:
        self._place, self._lab, self._experiment = clusters.of(lab, experiment), lab, experiment
        self._remark = remark
        self.away: Unreachable | None = None

    def __call__(self, start: int) -> bytes | None:
        """As `Place.log`; None also while the place does not answer, as is remarked once."""
        before, self.away = self.away, None
        try:
            return self._place.log(self._lab, self._experiment, start)
        except Unreachable as error:
            self.away = error
            if before is None:
                self._remark(f"waiting for a connection: {error.message}")
            return None


def _left_out(log: _Log) -> int:
    """Where a log that was shortened says what was left out; 0 if it does not."""
    seen = b""
    while piece := log(len(seen)):
        seen += piece
    notes = [note.start() for note in LEFT_OUT.finditer(seen)]
    return notes[-1] if notes else 0


def _kept(experiment: Experiment, away: Unreachable | None) -> str:
    """The log's end as the row has it, for a log that is out of reach, maybe as its place is away."""
    if experiment.log_tail:
        return experiment.log_tail + "\n"
    raise away or _no_log(experiment)


def _no_log(experiment: Experiment) -> EmsError:
    stack = experiment.registration.stack
    if experiment.registration.imported:
        return DatabaseError(f"{stack} is being imported, which has no log.", f"How far it is: ems status {stack}")
    if not experiment.agent:
        return DatabaseError(f"Stack {stack!r} has not run yet: it is {experiment.state}.", f"Run it: ems up {stack}")
    return UserError(
        f"The log of {stack} is not on this machine: it ran as {experiment.agent}.",
        "Read it in the lab's folder there.",
    )


class _Finished:
    """Whether the experiment is; the database is asked now and then, and while it is away the answer is no."""

    def __init__(self, lab: Lab, experiment: Experiment, remark: Say) -> None:
        self._lab, self._experiment = lab, experiment
        self._patience = Patience(remark)
        self._due = 0.0

    def __call__(self) -> bool:
        if time.monotonic() < self._due:
            return False
        with self._lab.database() as database:
            pause_s = look_s(database, POLL_S)
            try:
                now = database.experiment(self._experiment.id)
                self._patience.back()
            except DatabaseUnavailable as error:
                now, pause_s = self._experiment, self._patience.away(error)
        self._due = time.monotonic() + pause_s
        return now is None or now.state.finished
