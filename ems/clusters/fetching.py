"""Rows of runs that do not reach the lab's database, fetched for several experiments."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ems import clusters
from ems.base.errors import EmsError
from ems.base.messages import Say
from ems.clusters import Fetched, pull
from ems.databases import Experiment
from ems.lab import Lab
from ems.lab.experiments import find, newest

QUICK_S = 1.0  # in which questions are added for what jobs left
PAUSE_S = 1.5  # between two looks of who watches


@dataclass(frozen=True)
class Synced:
    """What was brought of one experiment, which is as it is now; `error`: why there may be more."""

    experiment: Experiment
    fetched: Fetched
    error: EmsError | None = None


def sync(lab: Lab, stacks: list[str] | None, say: Say) -> Iterator[Synced]:
    """All that their places keep of the newest experiments of these stacks, or of all that are not finished.

    One whose place is not reached does not keep the others from being fetched. Errors as of `newest`. `say` is told
    the name of each stack that is asked for.
    """
    found = newest(lab, stacks)
    for experiment in found if stacks else _kept_elsewhere(lab, found):
        say(experiment.registration.stack)
        if synced := _synced(lab, experiment):
            yield synced


def _synced(lab: Lab, experiment: Experiment) -> Synced | None:
    """None where there is nothing to be fetched, as agents store by themselves."""
    place, total = clusters.of(lab, experiment), Fetched()
    try:
        while found := place.fetch(lab, experiment):
            total = total.then(found)
            if not ((found.batches or found.bytes) and found.batches_left):
                return Synced(find(lab, experiment.id) or experiment, total)
    except EmsError as error:
        return Synced(find(lab, experiment.id) or experiment, total, error)
    return None


def glance(lab: Lab, stacks: Sequence[str] | None = None) -> None:
    """Before these are shown, or all: bring what comes at once over connections that are open. No error."""
    if not pull.is_used(lab):
        return
    give_up_at = time.monotonic() + QUICK_S
    with suppress(EmsError), lab.one_database():
        waiting = _kept_elsewhere(lab, newest(lab, list(stacks or [])))
        at_hand = [clusters.of(lab, experiment).at_hand(lab, experiment) for experiment in waiting]
        pull.glance([each for each in at_hand if each], give_up_at)


class Watching:
    """Fetches for who looks at experiments again and again; what is not reached is tried again later."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._due = lab, 0.0

    def __call__(self, experiments: Iterable[Experiment]) -> None:
        """Once more, unless that was done a moment ago."""
        if not pull.is_used(self._lab) or time.monotonic() < self._due:
            return
        for experiment in _kept_elsewhere(self._lab, experiments):
            with suppress(EmsError):
                clusters.of(self._lab, experiment).fetch(self._lab, experiment)
        self._due = time.monotonic() + PAUSE_S


def _kept_elsewhere(lab: Lab, experiments: Iterable[Experiment]) -> list[Experiment]:
    """Those of which there may be more than the database has."""
    return [each for each in experiments if not each.state.finished and pull.mark(lab, each.id).exists()]
