"""What the job of an experiment wrote to its standard output and error."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator

from ems import clusters
from ems.base.errors import DatabaseError, DatabaseUnavailable, EmsError, UserError
from ems.base.messages import Say
from ems.databases import Experiment
from ems.lab import Lab
from ems.lab.patience import Patience, look_s
from ems.node.job.log import LEFT_OUT

POLL_S = 0.5


def read(lab: Lab, experiment: Experiment, remark: Say, *, follow: bool) -> Iterator[str]:
    """The log in pieces of text; with `follow`, until the experiment is finished, also while the database is away, as
    `remark` is told.

    Of a log that is out of reach, its end as the row has it. UserError if the row has none, as the log is on another
    machine; DatabaseError if nothing has run yet.
    """
    place = clusters.of(lab, experiment)
    finished = _Finished(lab, experiment, remark)
    start, text = 0, codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        last = not follow or finished()  # before reading: so what it wrote before its end is read
        while piece := place.log(lab, experiment, start):
            yield text.decode(piece)
            start += len(piece)
        if piece == b"" and start and not place.log(lab, experiment, start - 1):  # it was shortened since
            start = _left_out(place, lab, experiment)
            continue
        if last:
            break
        time.sleep(POLL_S)
    if piece is None and not start:
        yield _kept(experiment)


def _left_out(place: clusters.Place, lab: Lab, experiment: Experiment) -> int:
    """Where a log that was shortened says what was left out; 0 if it does not."""
    seen = b""
    while piece := place.log(lab, experiment, len(seen)):
        seen += piece
    notes = [note.start() for note in LEFT_OUT.finditer(seen)]
    return notes[-1] if notes else 0


def _kept(experiment: Experiment) -> str:
    """The log's end as the row has it, for a log that is out of reach."""
    if experiment.log_tail:
        return experiment.log_tail + "\n"
    raise _no_log(experiment)


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
