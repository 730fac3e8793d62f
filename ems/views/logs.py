"""What the job of an experiment wrote to its standard output and error."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ems.databases import Experiment
from ems.errors import DatabaseError, DatabaseUnavailable, EmsError, UserError
from ems.lab import Lab
from ems.lab.patience import Patience, look_s
from ems.messages import Say

CHUNK = 65_536
POLL_S = 0.5


def read(lab: Lab, experiment: Experiment, remark: Say, *, follow: bool) -> Iterator[str]:
    """The log in pieces; with `follow`, until the experiment is finished, also while the database is away, as `remark`
    is told. UserError if it is elsewhere."""
    path = lab.run_dir(experiment.id) / "job.log"
    finished = _Finished(lab, experiment, remark)
    while follow and not path.exists() and not finished():
        time.sleep(POLL_S)
    if not path.exists():
        if experiment.log_tail:
            yield experiment.log_tail + "\n"
            return
        raise _no_log(experiment)
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            last = not follow or finished()  # before reading: so what it wrote before its end is read
            while text := file.read(CHUNK):
                yield text
            if last:
                return
            time.sleep(POLL_S)


def _no_log(experiment: Experiment) -> EmsError:
    stack = experiment.registration.stack
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
