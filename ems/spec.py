"""What one stack file says, as types: `LabSpec`, `ClusterSpec` or `ExperimentSpec`. No I/O, no Pulumi."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]
Scalar = bool | int | float | str | None


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ExperimenterSpec(Strict):
    name: str
    email: str = ""
    github: str = ""
    gcp_account: str = ""
    aws_account: str = ""


class ProjectSpec(Strict):
    title: str
    parent: Name | None = None
    description: str = ""


class FundingSpec(Strict):
    agency: str
    award: str = ""
    budget_usd: float | None = Field(default=None, ge=0)
    expires: date | None = None
    slurm_account: str = ""
    gcp_project: str = ""
    aws_account: str = ""


class LabSpec(Strict):
    """`ems:lab`: the people, the tree of projects and the accounts that pay."""

    experimenters: dict[Name, ExperimenterSpec]
    projects: dict[Name, ProjectSpec]
    funding: dict[Name, FundingSpec]


class ClusterSpec(Strict):
    """`ems:cluster`: a persistent place that experiments name with `cluster: {stack: NAME}`."""

    kind: Name
    title: str = ""
    workers: int | None = Field(default=None, ge=1, le=10_000)


class CodeSpec(Strict):
    paths: tuple[str, ...] = ()  # empty: the whole tree but stacks/, notebooks/, docs/ and Markdown
    commit: str = "HEAD"
    repo: str | None = None


class CommandJob(Strict):
    """A program. It finds its parameters in the JSON file `$EMS_PARAMETERS`, writes to `$EMS_RESULTS_DIR`."""

    command: tuple[str, ...] = Field(min_length=1)
    parameters: dict[str, Scalar | list[Scalar]] = {}
    threads: int = Field(default=1, ge=1, le=1024)


class ResultsSpec(Strict):
    table: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,48}$")]


class PlaceSpec(Strict):
    """`cluster:` of an experiment: a place of its own by `kind`, or a persistent one by `stack`."""

    kind: Name | None = None
    stack: Name | None = None
    workers: int | None = Field(default=None, ge=1, le=10_000)


class LimitsSpec(Strict):
    max_hours: float | None = Field(default=None, gt=0, le=8760)
    limit_usd: float | None = Field(default=None, gt=0)


class ExperimentSpec(Strict):
    """`ems:experiment`: one experiment."""

    title: str = ""
    description: str = ""
    project: Name
    experimenter: Name
    funding: Name
    code: CodeSpec = CodeSpec()
    environment: Name
    job: CommandJob
    results: ResultsSpec
    cluster: PlaceSpec = PlaceSpec(kind="laptop")
    limits: LimitsSpec = LimitsSpec()
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    attempt: int = Field(default=1, ge=1)


Kind = Literal["lab", "cluster", "experiment"]
Spec = LabSpec | ClusterSpec | ExperimentSpec
