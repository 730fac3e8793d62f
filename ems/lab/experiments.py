"""The lab's experiments as its database has them: one, the newest of each stack, again and again.

Whoever shows some asks for these alone: a lab has thousands, each with a long spec and the end of a log.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from functools import partial

from ems.base.errors import DatabaseError, StackFileError, UserError
from ems.base.messages import Say, quiet
from ems.databases import Database, Experiment, Long
from ems.lab import Lab
from ems.lab.line import under_way
from ems.lab.patience import Patience, look_s

POLL_S = 0.5
ALL_S = 30.0  # how often `follow` looks at what is not under way


def find(lab: Lab, experiment_id: str) -> Experiment | None:
    """The experiment of this id; None if it has no row."""
    with lab.database() as database:
        return database.experiment(experiment_id)


def newest(
    lab: Lab, stacks: list[str] | None = None, also: Collection[Long] = (), remark: Say = quiet
) -> list[Experiment]:
    """The newest experiment of each stack that has one, sorted by the stack's name; `also` as of `Database.newest`.

    Of `stacks` alone, if there are any: then DatabaseError if none of them has one, UserError if one is not a stack of
    an experiment. `remark` is told those that have none, where others have.
    """
    with lab.database() as database:
        return _newest(lab, database, stacks, also, remark)


def follow(lab: Lab, stacks: list[str] | None, patience: Patience) -> Iterator[list[Experiment]]:
    """The newest experiments again and again, until none is under way. Only the first look may find no database.

    Errors as of `newest`; the pauses are 0.5 s, or longer where looks cost something. What is not under way is looked
    at every 30 s, and until then is the same object.
    """
    with lab.database() as database:
        pause_s, due = look_s(database, POLL_S), time.monotonic() + ALL_S
        seen = _by_stack(_newest(lab, database, stacks))
        while True:
            yield [seen[stack] for stack in sorted(seen)]
            active = [stack for stack, experiment in seen.items() if under_way(experiment)]
            if not active:
                return
            time.sleep(pause_s)
            is_due = time.monotonic() >= due
            seen |= _by_stack(patience(partial(_newest, lab, database, stacks if is_due else active)))
            due = time.monotonic() + ALL_S if is_due else due


def latest(lab: Lab, stack: str, also: Collection[Long] = ()) -> Experiment:
    """The newest experiment of a stack; DatabaseError if it has none, UserError if it is not a stack."""
    (experiment,) = newest(lab, [stack], also)
    return experiment


def _newest(
    lab: Lab, database: Database, stacks: list[str] | None, also: Collection[Long] = (), remark: Say = quiet
) -> list[Experiment]:
    """Where the database cannot say, a name that is not a stack is reported first."""
    try:
        found = _by_stack(database.newest(stacks or None, also))
    except DatabaseError:
        lab.known(stacks or [])
        raise
    missing = [_without_experiment(lab, stack) for stack in dict.fromkeys(stacks or []) if stack not in found]
    if missing and not found:
        raise missing[0]
    for error in missing:
        remark(f"{error.message} {error.hint}")
    return [found[stack] for stack in sorted(found)]


def _by_stack(experiments: list[Experiment]) -> dict[str, Experiment]:
    return {experiment.registration.stack: experiment for experiment in experiments}


def _without_experiment(lab: Lab, stack: str) -> DatabaseError:
    from ems.stack import stackfile  # whose models take as long to load as all else that `ems --help` needs

    lab.known([stack])
    with suppress(StackFileError):  # what is wrong with it, `ems check` says
        kind = stackfile.read(lab.stack_file(stack)).kind
        if kind != "experiment":
            what = "the lab" if kind == "lab" else "a place"
            raise UserError(f"Stack {stack} describes {what}, and runs nothing.", "Name the stack of an experiment.")
    return DatabaseError(f"Stack {stack!r} has no experiment in the lab's database.", f"Run it: ems up {stack}")
