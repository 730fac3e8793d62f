"""A lab moves from one database to another: all that the first one knows is copied, and then compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from ems.base.errors import EmsError, NoTables, UserError
from ems.base.messages import Say
from ems.databases import Database, Experiment
from ems.databases.comparing import TABLES, Compared, compare
from ems.databases.projects import parents_first
from ems.spool.batch import Batch
from ems.spool.gathering import joined

ROWS_TOGETHER = 20_000  # of results, whosever they are, in one transaction
SQLITE = "sqlite:///"


def refuse_target(source: str, target: str, root: Path) -> None:
    """UserError if both URLs name one database, or `target` a file in a folder that is not there.

    Relative files are taken from `root`, the lab's folder.
    """
    here, there = (_file(url, root) for url in (source, target))
    if source == target or (here and here == there):
        raise UserError(f"{source} and {target} are the same database.", "Name another one to copy into.")
    if there and not there.parent.is_dir():
        raise UserError(f"TO is in a folder that is not there: {there.parent}.", f"mkdir -p {quote(str(there.parent))}")


def _file(url: str, root: Path) -> Path | None:
    return (root / url.removeprefix(SQLITE)).resolve() if url.startswith(SQLITE) else None


@contextmanager
def speaking_of(argument: str) -> Iterator[None]:
    """What is wrong with this database is told of the argument that names it, not of the lab's `ems:database`."""
    try:
        yield
    except EmsError as error:
        error.message, error.hint = (_said_of(argument, text) for text in (error.message, error.hint))
        if isinstance(error, NoTables):
            error.hint = "Name the one that has the lab, as ems:database in Pulumi.yaml does."
        raise


def _said_of(argument: str, text: str) -> str:
    for name in ("The lab's database", "ems:database in Pulumi.yaml", "ems:database"):
        text = text.replace(name, argument)
    return text


def copy(source: Database, target: Database, say: Say) -> list[Compared]:
    """Copy everything, and compare. May be repeated: what is there already is written again.

    UserError if an experiment is under way in `source`, or `target` knows others.
    """
    with speaking_of("FROM"):
        experiments = source.experiments()
    _refuse_running(experiments)
    with speaking_of("TO"):
        target.create()
        there = target.experiments()
    _refuse_others(experiments, there)
    for table in TABLES:
        say(f"table {table}")
        target.put_rows(table, _parents_first(table, source.rows(table)))
    for part in _together(_results(source, experiments, target.cells_at_once, say)):
        target.put_results(part)
    return compare(source, target, say)


def _results(source: Database, experiments: Sequence[Experiment], cells: int, say: Say) -> Iterator[tuple[str, Batch]]:
    for number, experiment in enumerate(experiments, 1):
        of = f"results of experiment {number:,} of {len(experiments):,}"
        say(f"{of}, {experiment.registration.stack}: {experiment.rows_stored:,} rows")
        for batch in _larger(source.results(experiment.id), cells):
            yield experiment.id, batch


def _together(results: Iterable[tuple[str, Batch]]) -> Iterator[list[tuple[str, Batch]]]:
    """Parts of at least ROWS_TOGETHER rows, but for the last one."""
    waiting: list[tuple[str, Batch]] = []
    found = 0
    for id, batch in results:
        waiting.append((id, batch))
        found += len(batch)
        if found >= ROWS_TOGETHER:
            yield waiting
            waiting, found = [], 0
    if waiting:
        yield waiting


def _larger(batches: Iterable[Batch], cells: int) -> Iterator[Batch]:
    """The same rows in batches of at least so many cells, but for the last one."""
    waiting: list[Batch] = []
    found = 0
    for batch in batches:
        waiting.append(batch)
        found += len(batch) * (len(batch.columns) + 2)
        if found >= cells:
            yield joined(waiting)
            waiting, found = [], 0
    if waiting:
        yield joined(waiting)


def _refuse_running(experiments: Iterable[Experiment]) -> None:
    running = sorted({each.registration.stack for each in experiments if each.attempt and not each.state.finished})
    if running:
        raise UserError(
            f"Under way, so that it would change while it is copied: {', '.join(running)}.",
            "Wait (ems watch), or stop them: ems stop STACK",
        )


def _refuse_others(experiments: Iterable[Experiment], there: Iterable[Experiment]) -> None:
    others = {each.id for each in there} - {each.id for each in experiments}
    if others:
        raise UserError(
            f"The other database has {len(others):,} experiments that are not in this one, as {min(others)}.",
            "Copy into an empty database, or one that an earlier copy of this lab was made into.",
        )


def _parents_first(table: str, rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    if table != "project":
        return rows
    projects = {row["id"]: row for row in rows}
    return [projects[id] for id in parents_first({id: row["parent"] for id, row in projects.items()})]
