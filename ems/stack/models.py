"""What a stack file may say, as types: `LabSpec`, `ClusterSpec` and `ExperimentSpec`, with the meaning of each key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from ems.base import plugins
from ems.base.messages import nearest, show
from ems.stack import checks, fields, sweep_choice, sweep_grids
from ems.stack.fields import Name, Scalar
from ems.stack.result_models import OrNone, ResultsSpec
from ems.stack.strict import AsTuple, Strict


def _check_cluster_kind(kind: str) -> str:
    if kind in plugins.names("clusters"):
        return kind
    raise ValueError(f"is {show(kind)}: {nearest(kind, plugins.names('clusters'))}")


def _is_left_out(value: object) -> bool:
    """Of a key that came later: specs without it stay as they were recorded."""
    return value is None or value == ()


def _is_grid(value: object) -> bool:
    return value == "grid"


Title = Annotated[str, checks.words()]
Said = Annotated[str, checks.words(required=True)]
Lines = Annotated[str, checks.words(lines=True)]
Workers = Annotated[int, checks.number(low=1, high=10_000, whole=True)]
Threads = Annotated[int, checks.number(low=1, high=1024, whole=True)]
ClusterKind = Annotated[Name, AfterValidator(_check_cluster_kind)]


class ExperimenterSpec(Strict):
    """A person who runs experiments."""

    name: Said = Field(description="Full name.")
    email: Title = Field("", description="E-mail address.")
    github: Title = Field("", description="GitHub account.")
    gcp_account: Title = Field("", description="Google Cloud account, usually an e-mail address.")
    aws_account: Title = Field("", description="AWS account or user.")


class ProjectSpec(Strict):
    """A node in the lab's tree of projects."""

    title: Said = Field(description="What people read in the Tree of Notebooks.")
    parent: Name | None = Field(None, description="Name of the project above this one; left out at the top.")
    description: Lines = Field("", description="What the project is about; may have several lines.")


class FundingSpec(Strict):
    """An account that pays for computation."""

    agency: Said = Field(description="Who grants the money.")
    award: Title = Field("", description="Number of the award, in quotes.")
    budget_usd: Annotated[float, checks.number(low=0)] | None = Field(
        None, description="Budget for computation, in US dollars; left out: not limited by EMS."
    )
    expires: Annotated[date, fields.DAY] | None = Field(
        None, description='Last day on which it pays, in quotes, as "2027-12-31".'
    )
    slurm_account: Title = Field("", description="Account that Slurm charges (sbatch --account).")
    gcp_project: Title = Field("", description="Google Cloud project that is billed.")
    aws_account: Title = Field("", description="AWS account number that is billed, in quotes.")


class LabSpec(Strict):
    """`ems:lab`: the people, the tree of projects and the accounts that pay."""

    experimenters: dict[Name, ExperimenterSpec] = Field(description="People, each under a short name.")
    projects: dict[Name, ProjectSpec] = Field(description="The tree of projects, each under a short name.")
    funding: dict[Name, FundingSpec] = Field(description="Accounts that pay, each under a short name.")


class ClusterSpec(Strict):
    """`ems:cluster`: a persistent place that experiments name with `cluster: {stack: NAME}`."""

    model_config = ConfigDict(extra="allow")  # the settings of its kind

    kind: ClusterKind = Field(description="Kind of place.", json_schema_extra={"enum": [*plugins.names("clusters")]})
    title: Title = Field("", description="What people read.")
    reach: Annotated[str, fields.REACH] | None = Field(
        None,
        exclude_if=_is_left_out,
        description="`runner`: commands elsewhere only register runs, and `ems runner` at the place takes them; left "
        "out: they start them.",
    )


class CodeSpec(Strict):
    """The code: which files of which commit."""

    paths: Annotated[tuple[Annotated[str, fields.PATH], ...], AsTuple] = Field(
        (),
        description="Files and folders that are shipped and hashed; none: all but EMS's own files, "
        "notebooks, docs, Markdown, licences and what tools such as git keep in dot files.",
    )
    commit: Annotated[str, fields.COMMIT] = Field("HEAD", description="HEAD, or a full commit hash in quotes.")
    repo: Annotated[str, fields.REPOSITORY] | None = Field(
        None, description="URL of another Git repository that has the code; then `commit` is a full hash."
    )


class LockSpec(Strict):
    """`environment:` of an experiment whose packages are pinned by a lock that the repository has anyway."""

    lock: Annotated[str, fields.LOCK] = Field(
        description="Path of the lock from the lab's folder: uv.lock, pylock.toml, or a requirements.txt with hashes; "
        "`../uv.lock` is one further up in the repository."
    )
    groups: Annotated[tuple[Annotated[str, fields.GROUP], ...], AsTuple] = Field(
        (), description="Dependency groups that are installed too; none: the project's own dependencies alone."
    )
    extras: Annotated[tuple[Annotated[str, fields.GROUP], ...], AsTuple] = Field(
        (), description="Extras of the project that are installed too."
    )
    python: Annotated[str, fields.PYTHON] | None = Field(
        None,
        description='Version of Python in quotes, as "3.11"; left out: that of .python-version beside the lock, else '
        "the oldest that its requires-python allows.",
    )


class CommandJob(Strict):
    """A program. It finds its parameters in the JSON file `$EMS_PARAMETERS`, writes to `$EMS_RESULTS_DIR`."""

    command: Annotated[tuple[str, ...], fields.COMMAND] = Field(
        description="Program and arguments, as a list of words or as one line that is split as a shell would; "
        "no shell runs it."
    )
    parameters: dict[Name, Annotated[Scalar | list[Scalar], fields.PARAMETER]] = Field(
        default={}, description="Values that the program reads, each number as it is written here: 2.0 is not 2."
    )
    threads: Threads = Field(1, description="Threads of BLAS and OpenMP in each process.")


Grids = Annotated[tuple[dict[str, Any], ...], sweep_grids.SWEEP]
Proposer = Annotated[str, fields.FUNCTION]
Excluded = Annotated[tuple[str | dict[str, Any], ...], sweep_choice.EXCLUDE]
EXCLUDE = (
    "Points that are not computed, and do not count: points with given values, as {n: 100, seed: 3}, and conditions on "
    'parameters, as "m > n", with + - * /, comparisons, and, or, not.'
)
ORDER = (
    "In which order points are computed: grid, as they are numbered, or random, so that plots fill evenly and the time "
    "left is unbiased; it may be changed at any time."
)
Retries = Annotated[int, checks.number(low=0, high=100, whole=True)]
Failures = Annotated[int, checks.number(low=0, high=sweep_grids.MOST_POINTS, whole=True)]
Timeout = Annotated[float, checks.number(low=0, high=31_536_000, above=True)]
Megabytes = Annotated[int, checks.number(low=128, high=100_000_000, whole=True)]


class SweepJob(Strict):
    """A function, called once for each point of a grid of parameters; what it returns becomes the point's rows."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["sweep"]}, {"required": ["propose"]}]})

    function: Annotated[str, fields.FUNCTION] = Field(
        description="What is called with a point's parameters by name, as package.module:name; it returns a dict, "
        "a list of dicts or a data frame."
    )
    sweep: Grids = Field(
        (),
        exclude_if=_is_left_out,
        description="The grid, {name: values}, or a list of grids whose points follow one another. Values of a name: "
        "[1, 2, 3], {range: [start, stop, step]} in decimals with stop included if a step lands on it (with 1.0 for 1: "
        "doubles), {linspace: [start, stop, count]} or {count: 200} for independent seeds; under `zip` stand names "
        "whose values move together. The last name in the order of the alphabet varies fastest. With `propose` it is "
        "the first round, and may be left out.",
    )
    propose: Proposer | None = Field(
        None,
        exclude_if=_is_left_out,
        description="What gives the points of the next round, as package.module:name: it is called with the rows of "
        "the rounds before, and returns a list of points, {name: value}, a grid as in `sweep`, or None to end.",
    )
    exclude: Excluded = Field((), exclude_if=_is_left_out, description=EXCLUDE)
    order: Annotated[str, sweep_choice.ORDER] = Field("grid", exclude_if=_is_grid, description=ORDER)
    setup: Annotated[str, fields.FUNCTION] | None = Field(
        None,
        exclude_if=_is_left_out,
        description="What is called without arguments in each worker before its first point, as package.module:name; "
        "each call of the function is given what it returns by the keyword `context`. Arrays are in memory once a "
        "machine.",
    )
    setup_timeout_s: Timeout | None = Field(
        None,
        exclude_if=_is_left_out,
        description="Seconds after which the set-up is stopped, and the run fails; left out: no limit.",
    )
    threads: Threads = Field(1, description="Threads of BLAS and OpenMP in each worker.")
    retries: Retries = Field(0, description="How often a point that raises is tried again before it counts as failed.")
    max_failures: Failures | None = Field(
        None, description="With more failed points the run stops; left out: it goes on, but ends as failed if any did."
    )
    point_timeout_s: Timeout | None = Field(
        None, description="Seconds after which a point is stopped and counts as failed; left out: no limit."
    )
    memory_mb: Megabytes | None = Field(
        None, description="Memory of each worker in MB (10^6 bytes), beyond which it is ended; left out: no limit."
    )


class CommandSweepJob(Strict):
    """A program, run once for each point of a grid of parameters; what it writes becomes the point's rows."""

    command: Annotated[tuple[str, ...], fields.COMMAND] = Field(
        description="Program and arguments, as a list of words or as one line that is split as a shell would; "
        'no shell runs it. "{lr}" stands for the parameter lr of the point, {results} for its folder of results; '
        "braces are doubled. Values of `env` are filled in alike."
    )
    sweep: Grids = Field(description="The grid, {name: values}, or a list of grids, as of a function's sweep.")
    propose: Proposer | None = Field(
        None,
        exclude_if=_is_left_out,
        description="A Python function that gives the points of the next round, as of a function's sweep; with it, "
        "`sweep` is the first round.",
    )
    parameters: dict[Name, Annotated[Scalar | list[Scalar], fields.PARAMETER]] = Field(
        default={}, description="Values beside the grid that are the same for all points."
    )
    protocol: Annotated[str, fields.PROTOCOL] = Field(
        "process",
        description="process: the program is started for each point. lines: a program for each worker stays, reads a "
        "point as one line of JSON from standard input and answers with one on standard output.",
    )
    exclude: Excluded = Field((), exclude_if=_is_left_out, description=EXCLUDE)
    order: Annotated[str, sweep_choice.ORDER] = Field("grid", exclude_if=_is_grid, description=ORDER)
    threads: Threads = Field(1, description="Threads of BLAS and OpenMP in each program.")
    retries: Retries = Field(0, description="How often a point whose program fails is tried again.")
    max_failures: Failures | None = Field(
        None, description="With more failed points the run stops; left out: it goes on, but ends as failed if any did."
    )
    point_timeout_s: Timeout | None = Field(
        None, description="Seconds after which a point's program is ended and the point counts as failed."
    )
    memory_mb: Megabytes | None = Field(
        None, description="Memory of a program and all that it starts, in MB (10^6 bytes), beyond which it is ended."
    )


AnyJob = CommandJob | SweepJob | CommandSweepJob
COMMAND_SWEEP = "command with sweep"
JOBS: Mapping[str, type[AnyJob]] = {
    "command": CommandJob,
    "function": SweepJob,
    COMMAND_SWEEP: CommandSweepJob,
}
JOB_KEYS = ("command", "function")


def _job_kind(job: object) -> str | None:
    """The kind of a job by its keys; None if it has both of JOB_KEYS or neither."""
    if not isinstance(job, dict):
        return next((key for key, model in JOBS.items() if isinstance(job, model)), None)
    given = [key for key in JOB_KEYS if key in job]
    if len(given) != 1:
        return None
    return COMMAND_SWEEP if given == ["command"] and "sweep" in job else given[0]


Job = Annotated[
    Annotated[CommandJob, Tag("command")]
    | Annotated[SweepJob, Tag("function")]
    | Annotated[CommandSweepJob, Tag(COMMAND_SWEEP)],
    Discriminator(_job_kind),
]


def _environment_kind(environment: object) -> str:
    return "lock" if isinstance(environment, dict | LockSpec) else "name"


Environment = Annotated[
    Annotated[Name, Tag("name")] | Annotated[LockSpec, Tag("lock")], Discriminator(_environment_kind)
]


class InputSpec(Strict):
    """A file that the job reads in `$EMS_INPUT_DIR`; what is in it counts, not where it is."""

    model_config = ConfigDict(json_schema_extra={"required": ["url", "sha256"]})

    url: Annotated[str, fields.INPUT_URL] = Field(
        description="Where the file is: a path from the lab's folder, or a URL of https, gs, s3 or file."
    )
    sha256: Annotated[str, fields.SHA256] = Field(
        "", description="SHA-256 of the file, 64 hexadecimal digits; left out: `ems check` reports it for a local file."
    )


class PlaceSpec(Strict):
    """`cluster:` of an experiment: a place of its own by `kind`, or a persistent one by `stack`."""

    model_config = ConfigDict(
        extra="allow",  # the settings of its kind
        json_schema_extra={"oneOf": [{"required": ["kind"]}, {"required": ["stack"]}]},
    )

    kind: ClusterKind | None = Field(
        None,
        description="Kind of place, made for this run.",
        json_schema_extra={"enum": [*plugins.names("clusters"), None]},
    )
    stack: Name | None = Field(None, description="Stack of a persistent place.")


class LimitsSpec(Strict):
    """When the run ends at the latest."""

    max_hours: Annotated[float, checks.number(low=0, high=8760, above=True)] | None = Field(
        None, description="Hours over all attempts, as 0.5; raising it lets an expired experiment go on."
    )
    limit_usd: Annotated[float, checks.number(low=0, above=True)] | None = Field(
        None, description="Cost over all attempts, in US dollars."
    )
    max_points: Annotated[int, checks.number(low=1, high=sweep_grids.MOST_POINTS, whole=True)] | None = Field(
        None,
        exclude_if=_is_left_out,
        description="With `job.propose`: no round begins with which there would be more points; raising it lets an "
        "experiment that has succeeded go on.",
    )
    max_rounds: Annotated[int, checks.number(low=1, high=1_000_000, whole=True)] | None = Field(
        None,
        exclude_if=_is_left_out,
        description="With `job.propose`: rounds at most, the first one included; raising it lets an experiment that "
        "has succeeded go on.",
    )


class ExperimentSpec(Strict):
    """`ems:experiment`: one experiment."""

    title: Title = Field("", description="What people read.")
    description: Lines = Field("", description="What is asked and why; may have several lines.")
    project: Name = Field(description="A project of the lab.")
    experimenter: Name = Field(description="Who runs it, an experimenter of the lab.")
    funding: Name = Field(description="Who pays, a funding account of the lab.")
    code: CodeSpec = Field(CodeSpec(), description="Which code runs.")
    environment: Environment = Field(
        description="Folder under environments/ with the pinned packages; or {lock: uv.lock}, a lock of the repository."
    )
    job: Job = Field(
        description="What runs: a program (`command`), a program over a grid (`command` and `sweep`), or a function "
        "over a grid (`function` and `sweep`)."
    )
    inputs: dict[Annotated[str, fields.INPUT_NAME], InputSpec] = Field(
        default={}, description="Files that the job reads, each under the name that it has in $EMS_INPUT_DIR."
    )
    results: Annotated[ResultsSpec, OrNone()] = Field(
        description="Where the rows go, and where they come from; `none` for a job that has no rows."
    )
    cluster: PlaceSpec = Field(PlaceSpec(kind="laptop"), description="Where it runs; left out: on this laptop.")
    limits: LimitsSpec = Field(LimitsSpec(), description="When it ends at the latest.")
    env: dict[Annotated[str, fields.VARIABLE], Lines] = Field(
        default={},
        description="Environment variables of the job, as text that may have several lines; another value makes "
        "another experiment. Of a program over a grid they may have placeholders, and braces are doubled.",
    )
    attempt: Annotated[int, checks.number(low=1, high=1_000_000, whole=True)] = Field(
        1, description="Raise it to go on with a failed, cancelled or expired experiment."
    )


Kind = Literal["lab", "cluster", "experiment"]
Spec = LabSpec | ClusterSpec | ExperimentSpec
KINDS: tuple[Kind, ...] = ("lab", "cluster", "experiment")
MODELS: Mapping[Kind, type[LabSpec] | type[ClusterSpec] | type[ExperimentSpec]] = {
    "lab": LabSpec,
    "cluster": ClusterSpec,
    "experiment": ExperimentSpec,
}
