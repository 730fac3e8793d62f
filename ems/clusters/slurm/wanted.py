"""What holds for one run on a Slurm machine, of what stack files say. Standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

FILE = "slurm.json"  # in the run's folder: what holds for its head


@dataclass(frozen=True)
class Wanted:
    """The settings of one run. Of a head: `head_partition`, `head_hours`, `head_cores`."""

    partition: tuple[str, ...]
    qos: str
    account: str
    constraint: str
    gpus: int
    hours: float
    memory_gb: float | None
    cores: int
    processes_per_job: int
    workers: int
    head_partition: tuple[str, ...]
    head_hours: float
    head_cores: int
    head_computes: bool
    modules: tuple[str, ...]
    work_dir: str
    environments_dir: str
    local_scratch: str
    usd_per_core_hour: float
    sbatch: tuple[str, ...]
    host: str = ""
    unattended: bool = False
    is_here: bool = False

    @property
    def is_far(self) -> bool:
        """Whether the machine is reached by SSH; where a runner works, that is it."""
        return bool(self.host) and not self.is_here

    @staticmethod
    def of(said: Mapping[str, Any]) -> Wanted:
        """From JSON of its `asdict`."""
        listed = {key: tuple(value) for key, value in said.items() if isinstance(value, list)}
        return Wanted(**{**said, **listed})

    @property
    def processes_of_head(self) -> int:
        """How many processes compute in the head: of a command, one."""
        return max(1, self.head_cores // self.cores) if self.head_computes else 0

    @property
    def workers_elsewhere(self) -> int:
        """How many processes compute in other jobs, at most."""
        return max(0, self.workers - self.processes_of_head)


def wanted(*said: Mapping[str, Any], account: str = "") -> Wanted:
    """What holds of settings as their JSON says them, those that count most first; `account`: the funding's."""

    def first(key: str, default: Any, part: str = "") -> Any:
        found = (each.get(key) if not part else (each.get(part) or {}).get(key) for each in said)
        return next((value for value in found if value is not None), default)

    cores, partition = first("cores", 1), tuple(first("partition", ()))
    found = Wanted(
        partition=partition,
        qos=first("qos", ""),
        account=first("account", account),
        constraint=first("constraint", ""),
        gpus=first("gpus", 0),
        hours=first("hours", 2.0),
        memory_gb=first("memory_gb", None),
        cores=cores,
        processes_per_job=first("processes_per_job", 4),
        workers=first("workers", 4),
        head_partition=tuple(first("partition", partition, "head")),
        head_hours=first("hours", first("hours", 2.0), "head"),
        head_cores=first("cores", cores, "head"),
        head_computes=first("computes", True, "head"),
        modules=tuple(first("modules", ())),
        work_dir=first("work_dir", ""),
        environments_dir=first("environments_dir", ""),
        local_scratch=first("local_scratch", ""),
        usd_per_core_hour=first("usd_per_core_hour", 0.0),
        sbatch=tuple(first("sbatch", ())),
        host=first("host", ""),
        unattended=first("login", "person") == "unattended",
        is_here=first("reach", None) is not None,
    )
    return replace(found, processes_per_job=max(1, min(found.processes_per_job, found.workers_elsewhere)))
