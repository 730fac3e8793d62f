"""What notebooks and scripts read: rows, and how far a run is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ems import lab
from ems.base.console import say
from ems.base.errors import UserError
from ems.clusters.fetching import glance
from ems.databases import IMPORTED, LONG
from ems.lab import Lab
from ems.lab import outputs as stored
from ems.lab.experiments import follow, latest, newest
from ems.lab.line import under_way
from ems.lab.patience import Pace, Patience
from ems.views.frames import to_frame
from ems.views.imported import imported_object
from ems.views.output_files import OutputFiles, files_of
from ems.views.progress import Looking, Progress, look
from ems.views.where import parse

if TYPE_CHECKING:
    import pandas as pd

Seen = TypeVar("Seen")
T = TypeVar("T")
LEAST_PAUSE_S = 1.0
_answered: set[tuple[Path, str]] = set()


def results(stack: str, where: str | Sequence[str] = (), columns: str | Sequence[str] | None = None) -> pd.DataFrame:
    """The rows stored so far for the newest experiment of `stack`, in (point, row) order.

    Only those that fulfil each of `where`, as ["theta >= 1.5", "m = 60"]; point, row, and all columns or `columns`.
    Of rows that `ems import` brought in, `frame.attrs["imported"]` says where they come from.
    The lab is the one that the working directory lies in. UserError outside a lab, for a name that is not a stack, or
    for what is not a condition; DatabaseError without experiment, for an unknown column, or a value that does not fit
    its type; DatabaseUnavailable if the database does not answer the first call.
    """
    here = _lab_of(stack)
    conditions = [parse(text) for text in _listed(where)]
    columns = columns if columns is None else _listed(columns)

    def read() -> pd.DataFrame:
        glance(here, [stack])
        experiment = latest(here, stack, also=["spec"])
        with here.database() as database:
            frame = to_frame(database.results(experiment.id, columns, conditions))
            if frame.empty and conditions:  # with the columns, and their types, that it would have
                frame = to_frame(islice(database.results(experiment.id, columns, chunk_rows=1), 1)).iloc[:0]
        if origin := imported_object(experiment.registration):
            frame.attrs[IMPORTED] = dict(origin)
        return frame

    return _patiently(here, read)


def outputs(stack: str, to: str | Path | None = None) -> OutputFiles:
    """The files that the job of `stack`'s newest experiment left in the folder of EMS_OUTPUT_DIR, by point and name.

    `outputs("fit")["model.bin"].path` is such a file on this machine, brought when it is asked for. `to`: a folder to
    bring them all into, those of a sweep's points in folders `point-7`.
    UserError outside a lab, for a name that is not a stack, or if another file is in the way; DatabaseError without
    experiment; StoreError if the store does not have one, or one that is damaged.
    """
    here = _lab_of(stack)

    def read() -> OutputFiles:
        glance(here, [stack])
        experiment = latest(here, stack, also=["spec"])
        found = list(stored.of_experiment(here, experiment))
        points = stored.has_points(experiment.registration)
        return files_of(here, found, stored.fetch(here, found, Path(to), points=points) if to else [])

    return _patiently(here, read)


def _lab_of(*stacks: object) -> Lab:
    """The lab that the working directory lies in."""
    for stack in stacks:
        if not isinstance(stack, str):
            raise UserError(f"{stack!r} is not the name of a stack.", "Give names as texts, as ems.results('digits').")
    return lab.find()


def _listed(texts: str | Sequence[str]) -> Sequence[str]:
    """One text is a list of one."""
    return [texts] if isinstance(texts, str) else texts


def progress(stack: str) -> Progress:
    """How far the newest experiment of `stack` is now: state, points, points a second, time left, rows, failures.

    UserError outside a lab, or for a name that is not a stack; DatabaseError without experiment, and
    DatabaseUnavailable if the database does not answer the first call.
    """
    here = _lab_of(stack)

    def read() -> Progress:
        glance(here, [stack])
        return look(here, latest(here, stack, also=LONG))

    return _patiently(here, read)


def _patiently(here: Lab, ask: Callable[[], T]) -> T:
    """The answer. A database that has answered before is waited for, as one call of a loop must not end the loop."""
    known = (here.root, here.database_url)
    answer = Patience(say)(ask) if known in _answered else ask()
    _answered.add(known)
    return answer


@overload
def watch(stack: str, /) -> Watch[Progress]: ...
@overload
def watch(*stacks: str) -> Watch[tuple[Progress, ...]]: ...
def watch(*stacks: str) -> Watch[Any]:
    """Follow runs until all have ended; in a notebook alone at the end of a cell, or anywhere as a loop:

    for progress in ems.watch("svd"):
        draw(ems.results("svd"))
        plt.show()

    Each turn gives the Progress of the one stack, or a tuple of them (no name: of all stacks), and shows it: in a
    notebook below what the loop's body shows, in the place of the turn before; elsewhere as a line on standard error.
    A turn comes about every second, or more seldom, so that the body takes at most a quarter of the time.
    While the database is away it waits, and so do `results` and `progress`, once it has answered: they say so.
    Errors as of `progress`, at the call: before the first turn.
    """
    here = _lab_of(*stacks)
    newest(here, list(stacks))  # what is wrong with a name is told here, not at the first turn
    _answered.add((here.root, here.database_url))
    return Watch(here, stacks)


class Watch(Generic[Seen]):
    """What `watch` returns: each turn of a loop over it gives a Progress, or of several stacks a tuple of them.

    While it goes on, a database that is away is waited for; other errors are raised.
    """

    def __init__(self, here: Lab, stacks: Sequence[str]) -> None:
        self._lab, self._stacks = here, list(stacks)

    def __iter__(self) -> Iterator[Seen]:
        if not in_notebook():
            yield from self._with_lines()
            return
        from IPython.display import clear_output, display

        for seen in self._turns():
            clear_output(wait=True)
            yield seen
            display(seen)

    def _with_lines(self) -> Iterator[Seen]:
        pace, last, shown = Pace(), "", False
        for seen in self._turns():
            yield seen
            last = repr(seen)
            shown = pace.shows(last)
            if shown:
                say(last)
        if not shown:
            say(last)

    def _turns(self) -> Iterator[Any]:
        due, patience, looks = 0.0, Patience(say), Looking(self._lab)
        for experiments in follow(self._lab, self._stacks, patience):
            if time.monotonic() < due and any(map(under_way, experiments)):
                continue
            began = time.monotonic()
            seen = tuple(patience(partial(looks, experiments)))
            yield seen[0] if len(self._stacks) == 1 else Together(seen)
            took_s = time.monotonic() - began
            due = time.monotonic() + max(3 * took_s, LEAST_PAUSE_S)

    def _ipython_display_(self) -> None:
        """Of a notebook's cell that ends with `ems.watch(…)`."""
        if not in_notebook():
            for _ in self:
                pass
            return
        from IPython.display import display

        handle = None
        for seen in self._turns():
            if handle is None:
                handle = display(seen, display_id=True)
            else:
                handle.update(seen)

    def __repr__(self) -> str:
        named = ", ".join(map(repr, self._stacks))
        return f"ems.watch({named}): loop over it, as `for progress in ems.watch({named}): …`"


class Together(tuple[Progress, ...]):
    """Looks at several stacks at a time: a tuple of Progress, by name of the stack."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        return "".join(one._repr_html_() for one in self)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, which can change what it has shown. EMS does not need IPython."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None
