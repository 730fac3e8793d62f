"""What a stack file may say of a server, besides `kind: server`.

In the place's own stack these are its defaults; an experiment that names the place may say some otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ems.clusters.by_ssh import LOGINS, BySsh
from ems.clusters.site import Reached
from ems.stack import checks
from ems.stack.models import Title, Workers
from ems.stack.strict import AsTuple, Strict

Whole = Annotated[int, checks.number(low=1, high=10_000, whole=True)]
Memory = Annotated[float, checks.number(low=0, above=True)]
Gpu = Annotated[str, checks.matching(r"[A-Za-z0-9-]+", 'the number or UUID of a GPU in quotes, as "0"')]
Gpus = Annotated[tuple[Gpu, ...], AsTuple]


class Has(Strict):
    """What runs of EMS may have together."""

    cores: Whole | None = Field(None, description="Cores; left out: all.")
    memory_gb: Memory | None = Field(None, description="Memory in GB (10^9 bytes); left out: all.")
    gpus: Gpus = Field((), description='GPUs, by number or UUID as CUDA_VISIBLE_DEVICES takes them, as ["0", "1"].')


class Settings(BySsh):
    """The keys of a server."""

    work_dir: Title | None = Field(
        None, description="Folder there for runs and environments; left out: ems, in the home folder."
    )
    environments_dir: Title | None = Field(
        None, description="Folder there for archives of environments, which a group may share; left out: in `work_dir`."
    )
    workers: Workers | None = Field(
        None, description="How many processes compute at once; left out: as many as its cores serve."
    )
    has: Has | None = Field(None, description="What the server has for runs of EMS, which share it in turn.")
    cores: Whole | None = Field(
        None, description="Cores that a run takes; left out: of a sweep one for each worker, of a command its threads."
    )
    memory_gb: Memory | None = Field(None, description="Memory that a run takes in GB (10^9 bytes); left out: none.")
    gpus: Whole | None = Field(None, description="GPUs that a run takes; left out: none.")


@dataclass(frozen=True)
class Wanted(Reached):
    """The settings of one run. 0: it is not said."""

    cores: int
    memory_gb: float
    gpus: int
    has_cores: int
    has_memory_gb: float
    has_gpus: tuple[str, ...]
    workers: int


def wanted(*said: Mapping[str, Any]) -> Wanted:
    """What holds of settings as their JSON says them, those that count most first."""

    def first(key: str, default: Any, part: str = "") -> Any:
        found = (each.get(key) if not part else (each.get(part) or {}).get(key) for each in said)
        return next((value for value in found if value is not None), default)

    return Wanted(
        host=first("host", ""),
        unattended=first("login", LOGINS[0]) == LOGINS[0],
        is_here=first("reach", None) is not None,
        work_dir=first("work_dir", "ems"),
        environments_dir=first("environments_dir", ""),
        workers=first("workers", 0),
        cores=first("cores", 0),
        memory_gb=first("memory_gb", 0.0),
        gpus=first("gpus", 0),
        has_cores=first("cores", 0, "has"),
        has_memory_gb=first("memory_gb", 0.0, "has"),
        has_gpus=tuple(first("gpus", (), "has")),
    )
