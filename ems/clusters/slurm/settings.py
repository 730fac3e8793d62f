"""What a stack file may say of a Slurm machine, besides `kind: slurm`.

In the place's own stack these are its defaults; an experiment that names the place may say some otherwise.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ems.base.messages import show
from ems.clusters.by_ssh import BySsh, Login
from ems.stack import checks
from ems.stack.checks import Checked, one_line
from ems.stack.models import Title, Workers
from ems.stack.strict import AsTuple, Strict

OWN_OPTIONS = (
    *("array", "chdir", "comment", "dependency", "error", "export", "job-name", "no-requeue", "open-mode", "output"),
    *("parsable", "requeue", "signal", "test-only", "wait", "wrap"),
)
Word = Annotated[str, checks.matching(r"[A-Za-z0-9_.,:@+*&|!()\[\]=-]+", "a word without spaces and quotes")]
Module = Annotated[str, checks.matching(r"[A-Za-z0-9_.:@+/-]+", "the name of a module, as python/3.12")]
Words = Annotated[tuple[Word, ...], AsTuple]
Hours = Annotated[float, checks.number(low=0, high=8760, above=True)]
Whole = Annotated[int, checks.number(low=1, high=10_000, whole=True)]


def _check_option(value: object) -> str:
    text = one_line(value, "an option of sbatch, as --exclusive")
    name = text.partition("=")[0].removeprefix("--")
    if not text.startswith("--") or " " in name or name in OWN_OPTIONS:
        raise ValueError(f"is {show(text)}: allowed is an option as --exclusive, but for those that EMS sets: {OWN}")
    return text


OWN = ", ".join(f"--{name}" for name in OWN_OPTIONS)
Option = Annotated[str, Checked(_check_option, {"type": "string", "pattern": "^--"})]


class HeadSettings(Strict):
    """The job that leads a run."""

    partition: Words | None = Field(None, description="Partitions in which it may run; left out: those of the workers.")
    hours: Hours | None = Field(None, description="Time limit of one such job; a run may take several.")
    cores: Whole | None = Field(None, description="Cores that it has.")
    computes: bool | None = Field(
        None, description="Whether it computes points itself, beside the workers; left out: yes."
    )


class Settings(BySsh):
    """The keys of a Slurm machine."""

    login: Login | None = Field(
        None,
        description="How one logs in to `host`: by a `person`, for whose password or second factor `ems login` asks, "
        "or `unattended`, by a key or Kerberos; left out: person.",
    )

    partition: Words | None = Field(
        None, description="Partitions in which jobs may run, as [normal, owners]; left out: Slurm's default."
    )
    qos: Word | None = Field(None, description="Quality of service (--qos).")
    account: Word | None = Field(
        None, description="Account that Slurm charges; left out: `slurm_account` of the funding, else none is named."
    )
    constraint: Word | None = Field(None, description="Features that nodes must have (--constraint).")
    gpus: Whole | None = Field(None, description="GPUs of each process.")
    hours: Hours | None = Field(None, description="Time limit of each job of workers; left out: 2.")
    memory_gb: Annotated[float, checks.number(low=0, above=True)] | None = Field(
        None, description="Memory of each process in GB (10^9 bytes); left out: what Slurm gives."
    )
    cores: Whole | None = Field(None, description="Cores of each process; left out: 1.")
    processes_per_job: Whole | None = Field(None, description="Processes of each job of workers; left out: 4.")
    workers: Workers | None = Field(None, description="At most so many processes compute at once; left out: 4.")
    head: HeadSettings = Field(
        HeadSettings(), description="How the head, the job that leads a run, differs from the others."
    )
    modules: Annotated[tuple[Module, ...], AsTuple] | None = Field(
        None, description="Modules that are loaded (`module load`), with their versions, as [uv, python/3.12]."
    )
    work_dir: Title | None = Field(
        None,
        description="Folder on the shared file system for runs, as $SCRATCH/ems; left out: the lab's own; with `host`: "
        "ems, in the home folder there.",
    )
    environments_dir: Title | None = Field(
        None,
        description="Folder on the shared file system for environments, as $GROUP_HOME/ems; left out: in `work_dir`. "
        "The members of a group may share it.",
    )
    local_scratch: Title | None = Field(
        None,
        description="Folder on the disk of each node, where environments are unpacked; left out: $L_SCRATCH, $TMPDIR "
        "or /tmp, whichever there is.",
    )
    usd_per_core_hour: Annotated[float, checks.number(low=0)] | None = Field(
        None, description="What an hour of a core costs the lab, in US dollars; left out: nothing."
    )
    sbatch: Annotated[tuple[Option, ...], AsTuple] | None = Field(
        None, description="More options of sbatch, each as --exclusive."
    )
