"""The lab's experiments as its database has them: one, the newest of each stack, again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ems.base.errors import DatabaseError
from ems.databases import Experiment
from ems.lab import Lab
from ems.lab.line import under_way
from ems.lab.patience import Patience, look_s

POLL_S = 0.5


def find(lab: Lab, experiment_id: str) -> Experiment | None:
    """The experiment of this id; None if it has no row."""
    with lab.database() as database:
        return database.experiment(experiment_id)


def newest(lab: Lab, stacks: list[str] | None = None) -> list[Experiment]:
    """The newest experiment of each stack that has one, sorted by the stack's name.

    Of `stacks` alone, if there are any: then DatabaseError if one of them has none, UserError if one is not a stack.
    """
    experiments = _experiments(lab, stacks or [])
    by_stack: dict[str, Experiment] = {}
    for experiment in experiments:
        by_stack.setdefault(experiment.registration.stack, experiment)
    for stack in stacks or []:
        if stack not in by_stack:
            raise _without_experiment(lab, stack)
    return [by_stack[stack] for stack in sorted(set(stacks or by_stack))]


def follow(lab: Lab, stacks: list[str] | None, patience: Patience) -> Iterator[list[Experiment]]:
    """The newest experiments again and again, until none is under way. Only the first look may find no database.

    Errors as of `newest`; the pauses are 0.5 s, or longer where looks cost something.
    """
    with lab.database() as database:
        pause_s = look_s(database, POLL_S)
    experiments = newest(lab, stacks)
    while True:
        yield experiments
        if not any(map(under_way, experiments)):
            return
        time.sleep(pause_s)
        experiments = patience(lambda: newest(lab, stacks))


def latest(lab: Lab, stack: str) -> Experiment:
    """The newest experiment of a stack; DatabaseError if it has none, UserError if it is not a stack."""
    experiments = [found for found in _experiments(lab, [stack]) if found.registration.stack == stack]
    if not experiments:
        raise _without_experiment(lab, stack)
    return experiments[0]


def _experiments(lab: Lab, named: list[str]) -> list[Experiment]:
    """All there are; where the database cannot say, a name that is not a stack is reported first."""
    try:
        with lab.database() as database:
            return database.experiments()
    except DatabaseError:
        lab.known(named)
        raise


def _without_experiment(lab: Lab, stack: str) -> DatabaseError:
    lab.known([stack])
    return DatabaseError(f"Stack {stack!r} has no experiment in the lab's database.", f"Run it: ems up {stack}")
