"""What the lab's database knows: records, states, and what calls take and bring back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar, get_args

from ems.spool.batch import Value


class State(StrEnum):
    """How an experiment stands, or one of its runs."""

    REGISTERED = "registered"
    PROVISIONING = "provisioning"
    QUEUED = "queued"
    RUNNING = "running"
    LOST = "lost"
    PILOTED = "piloted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        """Whether the experiment is over, unless it is reopened."""
        return self in FINISHED


RETRYABLE = frozenset({State.FAILED, State.CANCELLED, State.EXPIRED})
FINISHED = RETRYABLE | {State.SUCCEEDED, State.PILOTED}


@dataclass(frozen=True)
class Experimenter:
    """A person who runs experiments, and the accounts they have elsewhere."""

    id: str
    name: str
    email: str = ""
    github: str = ""
    gcp_account: str = ""
    aws_account: str = ""


@dataclass(frozen=True)
class Project:
    """What experiments belong to."""

    id: str
    title: str
    parent: str | None = None  # another project's id: the projects are a tree
    description: str = ""


@dataclass(frozen=True)
class Funding:
    """What pays for experiments, with its budget in US dollars and the accounts that are charged."""

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


IMPORTED = "imported"
"""What stands for the place of an experiment that ran elsewhere."""
UNKNOWN = "unknown"
"""What stands for whatever nobody has said of such an experiment."""


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
    results_table: str  # "" for a job without rows (`results: none`)
    points_total: int
    max_hours: float | None = None
    limit_usd: float | None = None
    attempt: int = 1  # the spec's reviewed `attempt:`
    pilot: int | None = None  # so many points are computed now, a random sample of them; None: all
    job_digest: str = ""  # of the job but its grid, with inputs and `env:`; "" where no point can be reused

    @property
    def imported(self) -> bool:
        """Whether its rows were brought in by `ems import`, so that no run of EMS computed them."""
        return self.cluster == IMPORTED and self.environment_digest == UNKNOWN


@dataclass(frozen=True)
class Experiment:
    """A row of `experiment` as it stands now. Times are UTC, on the database's clock.

    `state` is the effective one: a run whose lease lapsed reads `lost`, one whose deadline passed `expired`, even if
    nobody wrote it.
    """

    registration: Registration
    state: State
    attempt: int  # number of the latest run; 0 before the first
    wanted_attempt: int  # the first run since the experiment was last opened; above `attempt` while that is due
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
    took_s: float = 0.0  # its runs together, each from its start to its last heartbeat
    finished_at: datetime | None = None
    destroyed_at: datetime | None = None  # when its stack released the record
    agent: str = ""  # the latest run's
    platform: str = ""  # the latest run's, as JSON (`ems.node.agent.platform.RunPlatform`); "" if not recorded
    error: str = ""
    log_tail: str = ""
    files_left: str = ""  # what its jobs left unread, as JSON (`ems.node.agent.leftovers.FileLeft`); "" if nothing

    @property
    def id(self) -> str:
        """The id that it is registered under."""
        return self.registration.id


Long = Literal["spec", "log_tail", "platform", "files_left"]
LONG: tuple[Long, ...] = get_args(Long)
"""What is long of an experiment, thousands of characters, and seldom shown."""


@dataclass(frozen=True)
class Claim:
    """The right to run an experiment: `attempt` is the fencing number that each of its writes carries."""

    experiment_id: str
    attempt: int
    results_table: str
    deadline_at: datetime | None
    cancel: bool = False  # somebody asked the run before it to stop: this one only stores what was left


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
    cost_basis: str = ""  # of what is known of the cost: accounting, completion or estimated; "" if it costs nothing
    files_left: str = ""  # of the experiment, by this run and those before


@dataclass(frozen=True)
class Round:
    """Points that were proposed together; they follow those of the rounds before.

    The grids of a stack file are round 1, where it has any; others are numbered on. `digest`: of the rows and failures
    that it was proposed from. Without points it says that there are no more rounds.
    """

    number: int
    first_point: int
    points: int
    grids: tuple[Mapping[str, Any], ...]  # as `Sweep.extended` takes them
    digest: str
    attempt: int = 0  # the run that proposed it


PointState = Literal["stored", "empty", "failed", "due"]  # due: failed, and to be computed again


@dataclass(frozen=True)
class Origin:
    """Points that were not computed but copied: the n-th of `points` is the n-th of `source_points`."""

    points: range
    source: str  # the experiment that computed them
    source_points: range


@dataclass(frozen=True)
class Output:
    """A file that a job left in EMS_OUTPUT_DIR, kept in the lab's store. `digest`: SHA-256 of its content, in hex."""

    point: int  # that left it; of a command without a grid 0
    name: str  # its path below that folder, with slashes
    digest: str
    size: int  # in bytes
    media_type: str
    attempt: int = 0  # the run that stored it


Operator = Literal["=", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True)
class Condition:
    """What a row must fulfil to be read: a column of the table, or `point` or `row`, compared with a value.

    `= None` asks for null and `!= None` for any value; null and NaN fulfil no other condition. Text is compared by
    code points, and booleans are equal or not.
    """

    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True)
class Checkup:
    """What `Database.check` found. `faults`: what keeps EMS from working here, each with how to fix it."""

    service: str  # its name and version
    role: str  # as whom EMS came in; "" where there are none
    may: tuple[str, ...]  # of MAY
    tables_version: int | None  # None: there are no tables yet
    needed_version: int
    latency_s: float  # the median of some round trips
    clock_ahead_s: float  # the database's clock less this machine's
    faults: tuple[str, ...]


MAY = ("read", "run experiments", "describe the lab", "change tables")
