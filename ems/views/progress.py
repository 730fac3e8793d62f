"""How far an experiment is, as one object: what the live views of terminal and notebook show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from html import escape

from ems import clusters
from ems.base.errors import Unreachable
from ems.base.messages import counted
from ems.clusters.fetching import Watching
from ems.databases import Experiment, State
from ems.lab import Lab
from ems.lab.line import duration, failed_points, standing, took, under_way
from ems.spool.batch import Mark
from ems.spool.failures import reason
from ems.views.failures import parameters

FAILURES = 5
LOG_LINES, LOG_BYTES = 50, 16_384
CSS_COLOURS = {
    **{State.SUCCEEDED: "green", State.PILOTED: "green", State.FAILED: "red", State.EXPIRED: "red"},
    **{State.LOST: "orange", State.CANCELLED: "purple"},
}


@dataclass(frozen=True, repr=False)
class Progress:
    """One look at an experiment.

    rate: points a second; workers: the processes that compute. Both are None where that is not known.
    waits: what a place with a queue is waiting for.
    failures: the last few failed points, in order of points. log: the job's last lines, where it runs on this machine.
    experiment: its row; of a watch without `spec`, `log_tail` and `platform`, which are "".
    """

    experiment: Experiment
    rate: float | None
    workers: int | None
    failures: tuple[Mark, ...]
    log: tuple[str, ...]
    waits: str = ""

    @property
    def stack(self) -> str:
        """Name of the stack."""
        return self.experiment.registration.stack

    @property
    def state(self) -> State:
        """State of the experiment."""
        return self.experiment.state

    @property
    def finished(self) -> bool:
        """Whether the experiment has ended: no state follows but by a retry."""
        return self.state.finished

    @property
    def under_way(self) -> bool:
        """Whether it is worth waiting for: neither finished nor lost."""
        return under_way(self.experiment)

    @property
    def points_done(self) -> int:
        """How many points are stored, with rows or without."""
        return self.experiment.points_done

    @property
    def points_failed(self) -> int:
        """How many points have failed."""
        return self.experiment.points_failed

    @property
    def points_total(self) -> int:
        """How many points the grid has; 1 for a command."""
        return self.experiment.registration.points_total

    @property
    def rows(self) -> int:
        """How many rows are stored."""
        return self.experiment.rows_stored

    @property
    def share(self) -> float:
        """From 0 to 1: the points that are done or have failed, of all."""
        return (self.points_done + self.points_failed) / max(self.points_total, 1)

    @property
    def took(self) -> timedelta:
        """What its runs took together, the one under way up to now; zero before the first."""
        return took(self.experiment)

    @property
    def left(self) -> timedelta | None:
        """Time until the last point, if it goes on at this rate; None where that is not known."""
        if not self.rate or not self.under_way:
            return None
        return timedelta(seconds=(self.points_total - self.points_done - self.points_failed) / self.rate)

    def details(self) -> Iterator[str]:
        """What there is to say beside stack, state and time, the most important first."""
        if self.points_total > 1:
            yield f"{self.points_done:,} of {self.points_total:,} points"
        if self.rate and self.left is not None:
            yield f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:.2g}/s"
            if self.left >= timedelta(seconds=1):
                yield f"{duration(self.left)} left"
        if failed_points(self.experiment):
            yield f"{self.points_failed:,} failed"
        if self.workers is not None:
            yield "1 worker" if self.workers == 1 else f"{self.workers} workers"
        if self.waits:
            yield self.waits
        yield counted(self.rows, "row")
        if self.experiment.attempt > 1:
            yield f"attempt {self.experiment.attempt}"

    def __repr__(self) -> str:
        error = f": {self.experiment.error.splitlines()[0]}" if self.finished and self.experiment.error else ""
        return " · ".join([f"{self.stack}: {standing(self.experiment)}", *self.details(), duration(self.took)]) + error

    def _repr_html_(self) -> str:
        return f'<div style="max-width: 60em; line-height: 1.5">{"".join(self._html())}</div>'

    def _html(self) -> Iterator[str]:
        colour = CSS_COLOURS.get(self.state, "inherit")
        state = f'<span style="color: {colour}">{standing(self.experiment)}</span>'
        yield f"<b>{escape(self.stack)}</b> {state} · {duration(self.took)}"
        if self.points_total > 1:
            style = "width: calc(100% - 4em); vertical-align: middle"
            yield f'<br><progress value="{self.share:.4f}" max="1" style="{style}"></progress> {self.percent}'
        yield f"<br>{escape(' · '.join(self.details()))}"
        if self.failures:
            yield f"<pre>{escape(chr(10).join(map(failure_line, self.failures)))}</pre>"
        if self.experiment.error:
            yield f'<pre style="color: red">{escape(self.experiment.error)}</pre>'

    @property
    def percent(self) -> str:
        """Rounded down: 100 % says that no point is left."""
        return f"{int(self.share * 100)} %"


def failure_line(mark: Mark) -> str:
    """Such as `point 204 (n=10, seed=3): ValueError: no five`."""
    return f"point {mark.point:,} ({parameters(mark)}): {reason(mark)}"


def glance(lab: Lab, experiment: Experiment) -> Progress:
    """As `look`, without failures and log: what costs nothing."""
    live = clusters.of(lab, experiment).live(lab, experiment)
    rate = live.rate if live else _mean_rate(experiment)
    workers, waits = (live.workers, live.waits) if live else (None, "")
    return Progress(experiment, rate, workers, failures=(), log=(), waits=waits)


def look(lab: Lab, experiment: Experiment) -> Progress:
    """What the database says of an experiment, and its place of the run and its log, where they are in reach.

    The last 5 failures, and up to 50 lines of the log of a run that is not finished. UserError if a package that the
    place needs is not installed; DatabaseError from the database.
    """
    seen, place = glance(lab, experiment), clusters.of(lab, experiment)
    log = b""
    with suppress(Unreachable):
        log = b"" if experiment.state.finished else place.log(lab, experiment, -LOG_BYTES) or b""
    lines = log.decode("utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return replace(seen, failures=_failures(lab, experiment), log=tuple(lines))


class Looking:
    """Looks at experiments again and again, in the order given: what is over and stands as before is not asked again.

    Without what is long, as `ems.lab.experiments.follow` gives them.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab, self._fetch = lab, Watching(lab)
        self._seen: dict[str, Progress] = {}

    def __call__(self, experiments: Sequence[Experiment]) -> list[Progress]:
        self._fetch(experiments)  # for the next look
        self._seen = {experiment.id: self._look(experiment) for experiment in experiments}
        return list(self._seen.values())

    def _look(self, experiment: Experiment) -> Progress:
        before = self._seen.get(experiment.id)
        if before is None or before.under_way:
            return look(self._lab, experiment)
        same = before.experiment is experiment or before.experiment == experiment  # as comparing thousands takes long
        return before if same else look(self._lab, experiment)


def _mean_rate(experiment: Experiment) -> float | None:
    """Of a first run elsewhere; of later ones nobody knows which points they computed."""
    row, seen = experiment, experiment.points_done + experiment.points_failed
    if (
        row.state is not State.RUNNING
        or row.attempt != 1
        or row.started_at is None
        or row.registration.points_total == 1
    ):
        return None
    return seen / max((datetime.now(UTC) - row.started_at).total_seconds(), 1.0)


def _failures(lab: Lab, experiment: Experiment) -> tuple[Mark, ...]:
    if not experiment.points_failed:
        return ()
    with lab.database() as database:
        return tuple(database.failures(experiment.id, FAILURES))
