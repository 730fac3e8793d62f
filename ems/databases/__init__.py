"""The lab's database: the registry of experiments and their results, behind one interface.

The URL's scheme is the name of the module here that serves it: `sqlite:///path` → `ems/databases/sqlite.py`,
whose `connect(url, root)` returns a `Database`.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar

from ems.errors import UserError
from ems.node.spool import Batch, Mark


class State(StrEnum):
    REGISTERED = "registered"
    PROVISIONING = "provisioning"
    QUEUED = "queued"
    RUNNING = "running"
    LOST = "lost"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        return self in FINISHED


FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
RETRYABLE = FINISHED - {State.SUCCEEDED}


@dataclass(frozen=True)
class Experimenter:
    id: str
    name: str
    email: str = ""
    github: str = ""
    gcp_account: str = ""
    aws_account: str = ""


@dataclass(frozen=True)
class Project:
    id: str
    title: str
    parent: str | None = None  # another project's id: the projects are a tree
    description: str = ""


@dataclass(frozen=True)
class Funding:
    id: str
    agency: str
    award: str = ""
    budget_usd: float | None = None
    expires: date | None = None
    slurm_account: str = ""
    gcp_project: str = ""
    aws_account: str = ""


@dataclass(frozen=True)
class ClusterRow:
    """A persistent place that experiments may name. `settings`: its `ems:cluster` as JSON."""

    id: str
    kind: str
    settings: str


Record = Experimenter | Project | Funding | ClusterRow
R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Registration:
    """What is written about an experiment before it runs. Identity is `id` and `digest`; the rest may change."""

    id: str
    stack: str
    digest: str
    experimenter: str
    project: str
    funding: str
    spec: str  # the validated `ems:experiment` as JSON
    repository: str  # remote URL without credentials, or "" where there is no remote
    commit: str
    tree: str  # digest of the declared code paths at that commit
    stack_file_commit: str
    environment: str
    environment_digest: str
    python: str
    cluster: str  # kind or persistent stack
    results_table: str
    points_total: int
    max_hours: float | None = None
    limit_usd: float | None = None
    attempt: int = 1  # the spec's reviewed `attempt:`
    job_digest: str = ""  # of the job but its grid, with inputs and `env:`; "" where no point can be reused


@dataclass(frozen=True)
class Experiment:
    """A row of `experiment` as it stands now. Times are UTC, on the database's clock.

    `state` is the effective one: a run whose lease lapsed reads `lost`, one whose deadline passed `expired`, even if
    nobody wrote it.
    """

    registration: Registration
    state: State
    attempt: int  # number of the latest run; 0 before the first
    wanted_attempt: int  # the run that should happen at least; above `attempt` while one is due
    points_done: int
    points_failed: int
    rows_stored: int
    machines: int  # that this experiment holds now
    cost_usd: float
    cancel_requested: bool
    registered_at: datetime
    deadline_at: datetime | None = None
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    destroyed_at: datetime | None = None  # when its stack let go of the record
    agent: str = ""  # the latest run's
    error: str = ""
    log_tail: str = ""

    @property
    def id(self) -> str:
        return self.registration.id


@dataclass(frozen=True)
class Claim:
    """The right to run an experiment: `attempt` is the fencing number that each of its writes carries."""

    experiment_id: str
    attempt: int
    results_table: str
    deadline_at: datetime | None


@dataclass(frozen=True)
class Orders:
    """What a heartbeat brings back."""

    cancel: bool
    expired: bool
    deadline_at: datetime | None


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `state`: a finished one, or LOST for a run that stopped in order and may go on."""

    state: State
    points_done: int
    points_failed: int
    exit_code: int | None = None
    error: str = ""
    log_tail: str = ""
    cost_usd: float = 0.0


PointState = Literal["stored", "empty", "failed"]


@dataclass(frozen=True)
class Origin:
    """Points that were not computed but copied: the n-th of `points` is the n-th of `source_points`."""

    points: range
    source: str  # the experiment that computed them
    source_points: range


class Database(ABC):
    """What every backend promises:

    - Durable: a call that returned has survived a crash of client and server.
    - Idempotent: any call may be repeated; the same key twice is one row.
    - Fenced: `beat`, `store`, `release` raise FencedOut, and change nothing, once a later attempt holds the claim
      or the experiment is finished.
    - Live: what is committed is readable at once by other clients, while writes go on.
    - Patient: contention is waited out; DatabaseUnavailable means it cannot be reached now, nothing was changed,
      and the call may be repeated for ever.
    - Read-only calls create nothing: neither a file nor a table.

    - Whole: a point is stored, empty or failed, never two of these; what a call says of it changes at once.
    - Streamed: iterators hold neither all rows nor all points in memory, and read one snapshot.

    What a service forces to differ: SQLite stores NaN as NULL.

    The claim is one conditional write, so that each service can keep it:
    SQL: the row read under its lock (BEGIN IMMEDIATE; SELECT … FOR UPDATE), judged and written in one transaction;
    BigQuery: the same condition in one MERGE, whose affected-row count says who won;
    DynamoDB: UpdateItem with that ConditionExpression, ReturnValues=ALL_NEW.

    So are points: SQL: rows, marks and counters in the claim's transaction; BigQuery: the rows' load job into a table
    of its own, then one multi-statement transaction; DynamoDB: a batch's number on each item, which counts once the
    experiment's item, written last and on condition, names it.
    """

    @abstractmethod
    def create(self) -> None:
        """Make the tables, or bring an older schema up to date in one transaction. DatabaseError if it is newer."""

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
        does a raised `max_hours` an expired one: the state becomes `registered`, `wanted_attempt` the next number.
        "The row's attempt" is the greater of `attempt` and `wanted_attempt`, so that a cancelled experiment stays so.
        A changed `max_hours` moves the deadline of a run that is under way. Once it has run, the commit stays the one
        that did: a later one with the same tree is the same experiment.
        DatabaseError names a missing experimenter, project or funding, a results table that EMS or the service keeps
        for itself, or one that is not where the experiment's rows already are.
        """

    @abstractmethod
    def reopen(self, experiment_id: str) -> Experiment:
        """Let a failed, cancelled or expired experiment go on; others are left as they are."""

    @abstractmethod
    def experiment(self, experiment_id: str) -> Experiment | None: ...

    @abstractmethod
    def experiments(self, stack: str | None = None) -> list[Experiment]:
        """Of one stack, or of all: first those that their stack holds now, newest first; then those it let go."""

    @abstractmethod
    def set_provisioning(self, experiment_id: str, machines: int) -> None:
        """Say that a place is being made: only while no run holds the experiment and it is not finished."""

    @abstractmethod
    def claim(self, experiment_id: str, *, agent: str, lease_s: float) -> Claim | None:
        """Become the one run of an experiment; None if it is finished or another agent's lease holds.

        A lease of the same `agent` does not count: by a lock that one process alone can hold, the caller vouches
        that nobody else of that name lives.
        Sets `started_at` (first time), state `running`, machines 1, clears cancel and error; the deadline is now plus
        `max_hours` less what earlier runs used (from claim to last heartbeat). Where that leaves nothing, the
        experiment is `expired`. The run that is taken over reads `lost`.
        """

    @abstractmethod
    def beat(self, claim: Claim, lease_s: float, points_done: int = 0, points_failed: int = 0) -> Orders:
        """Renew the lease, publish progress, hear orders. A run whose experiment was reopened hears `expired`."""

    @abstractmethod
    def store(self, claim: Claim, batch: Batch) -> None:
        """Write rows into the results table, making or widening it, and marks. Counts `rows_stored`.

        The points in `batch.replaces`, and those marked, first lose their rows, marks and origins.
        The table's key is (experiment_id, point, row); new columns are added; a column that is null in the whole
        batch fits every type; int64 and float64 become float64 if each integer is an exact double. DatabaseError,
        and nothing changed: other conflicts of types, names that are empty, differ only by case or are those of the
        keys (`rowid` too), text that is not Unicode, more columns than the service allows, a point with both rows
        and a mark, or with two marks.
        """

    @abstractmethod
    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        """The points that are stored (have rows), empty or failed; those never stored are absent.

        Ranges of neighbours, as long as can be: first the stored ones, then those marked, each in ascending order.
        1.5 million stored points take some 2 s at most; the key (experiment_id, point, row) makes it a scan of keys
        on every service (BigQuery: clustering; DynamoDB: a query of the sort key alone).
        """

    @abstractmethod
    def failures(self, experiment_id: str) -> Iterator[Mark]:
        """The failed points with parameters and error, in order of points. They outlive a reopening, until a batch
        that replaces them is stored."""

    @abstractmethod
    def reusable(self, registration: Registration) -> list[Experiment]:
        """Other experiments that ever ran and whose points are valid for this one too, newest first.

        Valid: of the same `tree`, `environment_digest`, `python` and `job_digest`; none where `job_digest` is "".
        """

    @abstractmethod
    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:
        """Copy points of the experiment `source` that are stored or empty; how many were.

        `pairs`: (point there, point here) of equal parameters, read as a stream; a pair whose point there is failed or
        absent changes nothing. Values stay, the point's number changes, the origin is recorded. Points come in
        fenced transactions of some thousand rows: a call that was interrupted may be repeated, or go on with the rest.
        """

    @abstractmethod
    def origins(self, experiment_id: str) -> Iterator[Origin]:
        """The points that were copied, in ascending order."""

    @abstractmethod
    def release(self, claim: Claim, outcome: Outcome) -> None:
        """End the run: state, counters, error, a `charge` row; machines 0. Idempotent for the same claim.

        A passed deadline does not hinder it. If the experiment was reopened meanwhile, that stays due.
        """

    @abstractmethod
    def request_cancel(self, experiment_id: str) -> Experiment | None:
        """Ask the run to stop. Without a live run (lease lapsed, or none yet) the experiment is `cancelled` at once."""

    @abstractmethod
    def mark_destroyed(self, experiment_id: str) -> None:
        """Note that the stack let go of the record; the record stays."""

    @abstractmethod
    def results(
        self, experiment_id: str, columns: Sequence[str] | None = None, chunk_rows: int = 10_000
    ) -> Iterator[Batch]:
        """Rows in (point, row) order, streamed in batches of `chunk_rows` from one snapshot; nothing if none were
        stored yet. All columns of the table, or those named. DatabaseError: unknown column or experiment."""

    @abstractmethod
    def close(self) -> None: ...


HELPERS = frozenset(
    {"columns", "marks", "migrations", "rules", "schema", "sql", "sql_runs", "sqlite_results", "tables"}
)


def schemes() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS)


def connect(url: str, root: Path) -> Database:
    """The database at `url`; relative paths are taken from `root`. Opens lazily: nothing is created or read yet."""
    scheme = url.partition(":")[0]
    if scheme not in schemes():
        raise UserError(
            f"ems:database is {url!r}: no database of that kind.",
            f"Allowed: {', '.join(name + '://…' for name in schemes())}",
        )
    module = importlib.import_module(f"ems.databases.{scheme}")
    database: Database = module.connect(url, root)
    return database
