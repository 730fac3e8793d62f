"""What the job of an experiment wrote to its standard output and error."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from ems import databases
from ems.databases import Experiment
from ems.errors import DatabaseError, EmsError, UserError
from ems.lab import Lab

CHUNK = 65_536
POLL_S = 0.5


def read(lab: Lab, experiment: Experiment, *, follow: bool) -> Iterator[str]:
    """The log in pieces; with `follow`, until the experiment is finished. UserError if it is elsewhere."""
    path = lab.run_dir(experiment.id) / "job.log"
    while follow and not path.exists() and not _finished(lab, experiment):
        time.sleep(POLL_S)
    if not path.exists():
        if experiment.log_tail:
            yield experiment.log_tail + "\n"
            return
        raise _no_log(experiment)
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            finished = not follow or _finished(lab, experiment)
            while text := file.read(CHUNK):
                yield text
            if finished:
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


def _finished(lab: Lab, experiment: Experiment) -> bool:
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        now = database.experiment(experiment.id)
    return now is None or now.state.finished
