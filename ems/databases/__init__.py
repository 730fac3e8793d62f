"""The lab's database: the registry of experiments and their results, behind one interface.

The URL's scheme is the name of the module here that serves it: `sqlite:///path` → `ems/databases/sqlite/database.py`,
whose `connect(url, root)` returns a `Database`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ems.base import plugins
from ems.base.errors import UserError
from ems.databases.records import (
    FINISHED,
    IMPORTED,
    LONG,
    MAY,
    RETRYABLE,
    UNKNOWN,
    Checkup,
    Claim,
    ClusterRow,
    Condition,
    Experiment,
    Experimenter,
    Funding,
    Long,
    Operator,
    Orders,
    Origin,
    Outcome,
    Output,
    PointState,
    Project,
    R,
    Record,
    Registration,
    Round,
    State,
)
from ems.databases.snippets import Language, through_csv
from ems.spool.batch import Batch, Mark

__all__ = [
    "FINISHED",
    "IMPORTED",
    "LONG",
    "MAY",
    "RETRYABLE",
    "UNKNOWN",
    "Checkup",
    "Claim",
    "ClusterRow",
    "Condition",
    "Database",
    "Experiment",
    "Experimenter",
    "Funding",
    "Long",
    "Operator",
    "Orders",
    "Origin",
    "Outcome",
    "Output",
    "PointState",
    "Project",
    "R",
    "Record",
    "Registration",
    "Round",
    "State",
    "connect",
]


class Database(ABC):
    """What every backend promises:

    - Durable: a call that returned has survived a crash of client and server.
    - Idempotent: any call may be repeated; the same key twice is one row.
    - Fenced: `beat`, `describe`, `store`, `propose`, `put_outputs`, `release` raise FencedOut, and change nothing,
      once a later attempt holds the claim or the experiment is finished.
    - Live: what is committed is readable at once by other clients, while writes go on.
    - Patient: contention is waited out; DatabaseUnavailable means it cannot be reached now, nothing was changed,
      and the call may be repeated for ever.
    - Read-only calls create nothing: neither a file nor a table.

    - Whole: a point is stored, empty or failed (or due), never two of these; what a call says of it changes at once.
    - Streamed: iterators hold neither all rows nor all points in memory, and read one snapshot.

    What a service forces to differ: SQLite stores NaN as NULL. PostgreSQL refuses text with NUL, names of columns
    beyond 63 bytes, and xmin, xmax, cmin, cmax, ctid and tableoid as names. BigQuery writes names that it does not take
    otherwise, hears beats once a minute, and makes a transaction of each batch in `put_results` and of each thousand
    rows in `put_rows`.
    DynamoDB has no clock: this machine's, corrected where the service's answers prove it wrong, so exact to a second;
    a snapshot may miss rows that were replaced after it was begun, once the run that replaced them is over; a column
    that has had an integer that is not an exact double stays int64; `put_rows` and `put_results`
    are not transactions.

    What a call about runs changes is decided by `rules`, the same for every service, which writes it on condition that
    the row is still the one that was read:
    SQL: the row read under its lock (BEGIN IMMEDIATE; SELECT … FOR UPDATE), judged and written in one transaction;
    BigQuery: that condition in the UPDATE that begins a transaction; the count of changed rows says who won;
    DynamoDB: that condition on the item's `revision`, in one UpdateItem or TransactWriteItems.

    So are points: SQL: rows, marks and counters in the claim's transaction; BigQuery: a batch's number on each row that
    a load job brings, which counts once a multi-statement transaction notes it; DynamoDB: the same number on each item,
    which counts once the experiment's item, written last and on condition, names it.
    """

    least_beat_s = 0.0
    """Beats come no more often: where each one costs, or counts against a quota."""
    pairs_at_once = 5_000
    """Of points that are copied: more where each call takes seconds."""
    outputs_at_once = 1_000
    cells_at_once = 0
    """What `put_results` best gets in one batch."""

    def store_pause_s(self, running_s: float) -> float:  # noqa: ARG002
        """How long batches are gathered between two calls of `store`, in a run that has lasted `running_s`."""
        return 0.0

    @abstractmethod
    def create(self) -> None:
        """Make the tables, or bring an older schema up to date in one transaction. DatabaseError if it is newer."""

    @abstractmethod
    def setup_script(self) -> str:
        """What `setup` does, in the service's own language, for people who review it or run it themselves."""

    @abstractmethod
    def setup(self) -> None:
        """`create`, and the roles that people are given, where there are such; DatabaseError without the right."""

    @abstractmethod
    def check(self) -> Checkup:
        """Measure and compare; changes nothing. DatabaseError only where nothing can be found out."""

    @abstractmethod
    def upsert(self, record: Record) -> None:
        """Write a row of experimenter, project, funding or cluster.

        DatabaseError if a project's parent is missing or lies below the project itself.
        """

    @abstractmethod
    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        """Of the three references, those with no row: (table, id, the ids there are)."""

    @abstractmethod
    def record(self, kind: type[R], id: str) -> R | None:
        """The row of this kind and id."""

    @abstractmethod
    def register(self, registration: Registration) -> Experiment:
        """Write an experiment's row, or what may change of it; clears `destroyed_at`.

        A `registration.attempt` above the row's attempt reopens a failed, cancelled or expired experiment, and so
        does a raised `max_hours` an expired one, and a raised `max_points` or `max_rounds` one with `job.propose` that
        has succeeded: the state becomes `registered`, `wanted_attempt` the next number.
        A `registration.pilot` of more points than before, or None for all, has a piloted one go on: it is `registered`
        again, and its failed points are not due.
        "The row's attempt" is the greater of `attempt` and `wanted_attempt`, so that a cancelled experiment stays so.
        A changed `max_hours` moves the deadline of a run that is under way. Once it has run, the commit stays the one
        that did: a later one with the same tree is the same experiment. While it runs, its results table stays.
        DatabaseError names a missing experimenter, project or funding, a results table that EMS or the service keeps
        for itself, or one that is not where the experiment's rows already are.
        """

    @abstractmethod
    def reopen(self, experiment_id: str) -> Experiment:
        """Let a failed, cancelled or expired experiment go on; others are left as they are. With a piloted one
        `register` goes on."""

    @abstractmethod
    def experiment(self, experiment_id: str) -> Experiment | None:
        """The experiment as it stands now; None if the database does not know it."""

    @abstractmethod
    def experiments(self, stack: str | None = None) -> list[Experiment]:
        """Of one stack, or of all: first those that their stack holds now, newest first; then those it released."""

    @abstractmethod
    def newest(self, stacks: Collection[str] | None = None, also: Collection[Long] = ()) -> list[Experiment]:
        """Of each of these stacks, or of all, the one that `experiments` has first; in the same order.

        What is long, `spec`, `log_tail`, `platform` and `files_left`, is "" unless `also` names it. What is fetched
        grows with the stacks that are asked for, not with their experiments.
        """

    @abstractmethod
    def set_provisioning(self, experiment_id: str, machines: int) -> None:
        """Say that a place is being made: only while no run holds the experiment and it is not finished."""

    @abstractmethod
    def claim(self, experiment_id: str, *, agent: str, lease_s: float) -> Claim | None:
        """Become the one run of an experiment; None if it is finished or another agent's lease holds.

        A lease of the same `agent` does not count: by a lock that one process alone can hold, the caller vouches
        that nobody else of that name lives.
        Sets `started_at` (first time), state `running`, machines 1, clears the error; a request to cancel holds until a
        person reopens the experiment, and the claim says so. The deadline is now plus
        `max_hours` less what earlier runs used (from claim to last heartbeat). Where that leaves nothing, the
        experiment is `expired`. The run that is taken over reads `lost`.
        """

    @abstractmethod
    def beat(self, claim: Claim, lease_s: float, points_done: int = 0, points_failed: int = 0) -> Orders:
        """Renew the lease, publish progress, hear orders. A run whose experiment was reopened hears `expired`."""

    @abstractmethod
    def describe(self, claim: Claim, platform: str) -> None:
        """Note on what the run runs, as JSON, in place of what was noted of it before. A new run has none."""

    @abstractmethod
    def store(self, claim: Claim, batch: Batch, attempt: int | None = None) -> None:
        """Write rows into the results table, making or widening it, and marks. Counts `rows_stored`.

        The points in `batch.replaces`, and those marked, first lose their rows, marks and origins.
        `attempt`: the earlier run that computed the batch, if it was not this one. Then it counts only for points of
        which there is nothing, or which failed in a run before that one: what a later run did stays. Its marks are
        those of that run.
        The table's key is (experiment_id, point, row); new columns are added; a column that is null in the whole
        batch fits every type; int64 and float64 become float64 if each integer is an exact double. DatabaseError,
        and nothing changed: other conflicts of types, names that are empty, differ only by case or are those of the
        keys (`rowid` too), text that is not Unicode, more columns than the service allows, a point with both rows
        and a mark, or with two marks.
        """

    @abstractmethod
    def check_columns(self, table: str, batch: Batch) -> None:
        """DatabaseError, as of `store`, if results table `table` could not take the batch's columns and values.

        Changes nothing; a table that is not there takes all columns that the service allows.
        """

    @abstractmethod
    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        """The points that are stored (have rows), empty, failed or due; those never stored are absent.

        Of the failed ones, those are due whose mark is of a run before `wanted_attempt`: a run that takes over after a
        crash leaves failed points alone, the runs after a reopening compute them again.

        Ranges of neighbours, as long as can be: first the stored ones, then those marked, each in ascending order.
        1.5 million stored points take some 2 s at most; the key (experiment_id, point, row) makes it a scan of keys
        on every service (BigQuery: clustering; DynamoDB: a query of the sort key alone).
        """

    @abstractmethod
    def propose(self, claim: Claim, wanted: Round) -> Round:
        """Record a round before any of its points is computed, and count its points in `points_total`.

        Each number is recorded once: a second call of the same number changes nothing and returns what the first one
        recorded, as the first one does, whatever the second one wants. DatabaseError, and nothing changed, if its
        points do not follow those of the round before, or if its grids take more than 3,000,000 characters of JSON.
        """

    @abstractmethod
    def rounds(self, experiment_id: str) -> list[Round]:
        """The rounds that were proposed, in order of their numbers; DatabaseError without such an experiment."""

    @abstractmethod
    def put_outputs(self, claim: Claim, outputs: Sequence[Output]) -> None:
        """Record files that are in the lab's store now, of this run; of the same point and name, the newest counts.

        They come in fenced transactions of `outputs_at_once`. Names have at most 900 bytes in UTF-8.
        """

    @abstractmethod
    def outputs(self, experiment_id: str) -> Iterator[Output]:
        """The files that were recorded, by point, then by name in order of their UTF-8; DatabaseError without such an
        experiment."""

    @abstractmethod
    def failures(self, experiment_id: str, last: int | None = None) -> Iterator[Mark]:
        """The failed points with parameters and error, in order of points, or just the `last` of these. They outlive a
        reopening, until a batch that replaces them is stored."""

    @abstractmethod
    def reusable(self, registration: Registration) -> list[Experiment]:
        """Other experiments that ever ran and whose points are valid for this one too, newest first.

        Valid: of the same `tree`, `environment_digest`, `python` and `job_digest`; none where `job_digest` is "".
        """

    @abstractmethod
    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:
        """Copy points of the experiment `source` that are stored or empty; how many were.

        `pairs`: (point there, point here) of equal parameters, read as a stream; a pair whose point there is failed or
        absent changes nothing. Values stay, and so do outputs; the point's number changes, the origin is recorded.
        Points come in fenced transactions of some thousand rows: a call that was interrupted may be repeated, or go on
        with the rest.
        """

    @abstractmethod
    def origins(self, experiment_id: str) -> Iterator[Origin]:
        """The points that were copied, in ascending order."""

    @abstractmethod
    def recharge(self, experiment_id: str, attempt: int, usd: float, basis: str) -> None:
        """What a released run cost is known better than when it was charged: correct its charge, and the sum.

        Nothing changes where the run has no charge.
        """

    @abstractmethod
    def release(self, claim: Claim, outcome: Outcome) -> None:
        """End the run: state, counters, error, a `charge` row; machines 0. Idempotent for the same claim.

        A passed deadline does not hinder it. If the experiment was reopened meanwhile, that stays due; if a pilot has
        become one of more points, the experiment is `registered`, so that it goes on.
        """

    @abstractmethod
    def request_cancel(self, experiment_id: str) -> Experiment | None:
        """Ask the run to stop. Without a live run (lease lapsed, or none yet) the experiment is `cancelled` at once."""

    @abstractmethod
    def note_left(self, experiment_id: str, files_left: str) -> None:
        """Note what is left now of the files that its jobs left, as JSON; "" for nothing."""

    @abstractmethod
    def mark_destroyed(self, experiment_id: str) -> None:
        """Note that the stack released the record; the record stays."""

    @abstractmethod
    def results(
        self,
        experiment_id: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
        chunk_rows: int = 10_000,
    ) -> Iterator[Batch]:
        """Rows that fulfil all of `where`, in (point, row) order, streamed from one snapshot; nothing if none were
        stored yet. Batches have at most `chunk_rows`. All columns of the table, or those named; `point` and `row` come
        always. DatabaseError: unknown column or experiment, or a value that does not fit the column's type."""

    # Copies of a whole lab (`ems.databases.copying`)

    @abstractmethod
    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        """All rows of one of the registry's tables (`ems.databases.tables`), by column, in any order."""

    @abstractmethod
    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write rows as `rows` gave them, many at once, in one transaction; those of the same key are replaced."""

    @abstractmethod
    def put_results(self, results: Sequence[tuple[str, Batch]]) -> None:
        """Write rows of results, as `results` gave them, each batch with its experiment's id; in one transaction,
        without a claim, and counting nothing."""

    def snippet(self, language: Language, experiment: Experiment, root: Path) -> str:
        """Code that reads the newest rows of the experiment's stack, live, and as it stands; `root`: the lab's folder.

        UserError for SQL, where the service speaks none.
        """
        return through_csv(language, experiment.registration.stack, root)

    @abstractmethod
    def close(self) -> None:
        """Close what was opened: connections, clients, threads."""


def check_address(url: str, root: Path) -> None:
    """UserError if `url` names no database that EMS knows, or holds a password; the database itself is not asked."""
    connect(url, root).close()


def connect(url: str, root: Path) -> Database:
    """The database at `url`; relative paths are taken from `root`. Opens lazily: nothing is created or read yet."""
    scheme, known = url.partition(":")[0], plugins.names("databases")
    if scheme not in known:
        raise UserError(
            f"ems:database is {url!r}: no database of that kind.",
            _address_hint(url, scheme, known),
        )
    database: Database = plugins.load("databases", scheme, "database").connect(url, root)
    return database


def _address_hint(url: str, scheme: str, known: Sequence[str]) -> str:
    if "://" not in url:
        return f"A file of SQLite is written so: sqlite:///{url.rpartition(':')[2] or '.ems/ems.db'}"
    (close,) = get_close_matches(scheme, known, n=1) or ("",)
    meant = f"Did you mean {close}:{url.partition(':')[2]}? " if close else ""
    return f"{meant}Allowed: {', '.join(name + '://…' for name in known)}"
