"""`ems up` of several stacks: the lab, then places, then experiments side by side."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, wait

from ems.base.errors import EmsError
from ems.base.threads import Threads
from ems.databases import Experiment
from ems.engine import lifecycle, manners, preflight
from ems.engine.lifecycle import Wishes
from ems.engine.runner import Pulumi
from ems.lab.stacks import StackFiles
from ems.lab.telling import Board

LOOK_S = 0.2
LAST_WORDS_S = 5.0  # for a thread whose engine has ended, to say how the run stands; the others are left where they are


def up_all(
    pulumi: Pulumi, stacks: StackFiles, names: Sequence[str], board: Board, wishes: Wishes, at_once: int
) -> list[Experiment]:
    """Bring stacks, as of `lifecycle.in_order`, to what their files say; returns the experiments as they are then.

    At most `at_once` experiments go on at a time. Of several, what hinders one is told on the board, and the others go
    on; then an error says how many there were, with the greatest exit code.
    """

    def one(name: str) -> Experiment | None:
        with board.stack(name) as telling:
            ended = lifecycle.up(pulumi, stacks, name, telling, wishes)
        board.end(name, ended.experiment if ended else None, ran=ended is None or ended.ran)
        return ended.experiment if ended else None

    first = [name for name in names if preflight.rank(stacks, name) < preflight.EXPERIMENT]
    for name in first:  # the others need them
        one(name)
    rest = names[len(first) :]
    if len(rest) == 1:
        found = [one(rest[0])]
    else:
        with manners.handing_on() as signals:
            threads = Threads(at_once)
            found = _results(dict(zip(rest, [threads.submit(one, name) for name in rest], strict=True)), board, signals)
    return [experiment for experiment in found if experiment]


def _results(
    running: dict[str, Future[Experiment | None]], board: Board, signals: manners.Signals
) -> list[Experiment | None]:
    while wait(running.values(), LOOK_S).not_done:
        if signals.heard and not signals.engines:  # those have ended in order
            going_on = [future for future in running.values() if not future.cancel()]
            wait(going_on, LAST_WORDS_S)
            raise KeyboardInterrupt
    failed = {name: error for name, future in running.items() if (error := future.exception())}
    for error in failed.values():
        if not isinstance(error, EmsError):
            raise error
    for name, error in failed.items():
        board.fail(name, str(error))
    if failed:
        raise _all_of(len(running), [error for error in failed.values() if isinstance(error, EmsError)])
    return [future.result() for future in running.values()]


def _all_of(stacks: int, errors: Sequence[EmsError]) -> EmsError:
    failed = EmsError(f"{len(errors)} of {stacks} stacks could not be brought up.", "Their errors stand above.")
    failed.exit_code = max(error.exit_code for error in errors)
    return failed
