"""What `ems up` of a Slurm machine finds out about it, and refuses of its settings; each step ends in bounded time."""

from __future__ import annotations

import json
import os
import platform
import pwd
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ems.base import aside, filesystems
from ems.base.errors import EmsError, UserError
from ems.base.messages import nearest
from ems.base.process import CommandFailed
from ems.clusters.slurm import heads, modules, queue, script
from ems.clusters.slurm.wanted import Wanted
from ems.node.environments.ready import FAILED

ANSWER = "answer.json"  # in the folder of a probe
PROBE_S = 60.0  # a job that waits longer says nothing, and nothing is wrong
LOOK_S = 0.5
SKEWED_S = 5.0


@dataclass(frozen=True)
class Partition:
    """A part of the machine. `hours`: the longest job; None: no limit. `preempts`: what becomes of preempted jobs."""

    name: str
    hours: float | None
    cores: int
    state: str
    preempts: str

    @classmethod
    def of(cls, line: str) -> Partition:
        """As a line of `scontrol show partition --oneliner` has it."""
        said = dict(re.findall(r"(\w+)=(\S*)", line))
        preempts = said.get("PreemptMode", "").lower()
        return cls(said["PartitionName"], hours(said["MaxTime"]), int(said["TotalCPUs"]), said["State"], preempts)


def hours(limit: str) -> float | None:
    """Of a time limit as Slurm writes it: minutes, [D-]H:M:S, or UNLIMITED."""
    if limit in {"UNLIMITED", "INFINITE", "NONE", "n/a"}:
        return None
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        parts += [0] * (3 - len(parts))
    elif len(parts) == 1:
        parts = [0, parts[0], 0]
    h, m, s = [0] * (3 - len(parts)) + parts
    return 24 * int(days or 0) + h + m / 60 + s / 3600


def survey(wanted: Wanted, work_dir: Path) -> dict[str, Any]:
    """What was found, as JSON. UserError for settings that this machine refuses, EmsError where Slurm does not answer.

    Makes the work folder.
    """
    try:
        version = queue.run("sinfo", "--version").split()[-1]
        partitions = _partitions()
    except CommandFailed as error:
        if error.code == heads.NOT_FOUND:
            raise heads.refused(error) from error
        raise EmsError(f"Slurm does not answer: {error}") from error
    accounts = _accounts()
    _refuse(wanted, partitions, accounts, "ems:cluster")
    modules.refuse(wanted.modules, "ems:cluster")
    return {
        "slurm": version,
        "partitions": [vars(each) for each in partitions],
        "accounts": accounts,
        "work_dir": _folder(work_dir),
        "python": platform.python_version(),
        "uv": bool(shutil.which("uv")),
        "modules": "LMOD_CMD" in os.environ or "MODULESHOME" in os.environ,
    }


def _partitions() -> list[Partition]:
    lines = queue.run("scontrol", "show", "partition", "--oneliner").splitlines()
    return [Partition.of(line) for line in lines if line.startswith("PartitionName=")]


def _accounts() -> list[str] | None:
    """That this user may charge; None where accounting does not say."""
    try:
        said = queue.run("sacctmgr", "-nP", "show", "assoc", "where", f"user={_user()}", "format=account")
    except CommandFailed:
        return None
    return sorted(set(said.split())) or None


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def refuse(wanted: Wanted, *, joined: bool) -> None:
    """UserError for settings of an experiment that this Slurm would not take; `joined`: whether it has workers.

    Where Slurm does not answer, nothing is refused.
    """
    try:
        partitions = _partitions()
    except CommandFailed as error:
        if error.code == heads.NOT_FOUND:
            raise heads.refused(error) from error
        return
    _refuse(wanted, partitions, _accounts() if wanted.account else None, "ems:experiment.cluster")
    modules.refuse(wanted.modules, "ems:experiment.cluster")
    with TemporaryDirectory() as folder:
        file, log = Path(folder, "job.sh"), Path(folder, "log")
        file.write_text("#!/bin/sh\n", encoding="utf-8")
        _try(file, "head", script.head_options("ems-test", Path(folder), wanted))
        if joined and wanted.workers_elsewhere:
            _try(file, "workers", script.worker_options("ems-test", 1, log, wanted))


def _try(file: Path, what: str, options: Sequence[str]) -> None:
    try:
        queue.test(file, options)
    except CommandFailed as error:
        if not (heads.is_unanswered(error) or heads.why_later(error)):
            raise heads.refused(error, f"the job of the {what}") from error


def _refuse(wanted: Wanted, partitions: Sequence[Partition], accounts: Sequence[str] | None, key: str) -> None:
    """UserError; `key`: of the settings, in the stack file."""
    known = {each.name: each for each in partitions}
    for name in (*wanted.partition, *wanted.head_partition):
        if name not in known:
            raise UserError(f"{key}.partition is {name!r}, which this Slurm has not: {nearest(name, known)}.")
    _refuse_hours(f"{key}.hours", wanted.hours, [known[name] for name in wanted.partition])
    _refuse_hours(f"{key}.head.hours", wanted.head_hours, [known[name] for name in wanted.head_partition])
    if wanted.account and accounts is not None and wanted.account not in accounts:
        allowed = nearest(wanted.account, accounts)
        raise UserError(f"{key}.account is {wanted.account!r}, which {_user()} may not charge: {allowed}.")


def _refuse_hours(key: str, wanted_hours: float, partitions: Sequence[Partition]) -> None:
    """A job that may start in several partitions starts where it fits: refused is what fits in none."""
    longest = [each for each in partitions if each.hours is not None and wanted_hours > each.hours]
    if longest and len(longest) == len(partitions):
        most = max(longest, key=lambda each: each.hours or 0)
        raise UserError(f"{key} is {wanted_hours:g}: allowed in {most.name} are {most.hours:g} or less.")


def _folder(folder: Path) -> Mapping[str, Any]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        room = os.statvfs(folder)
    except OSError as error:
        raise UserError(f"The work folder {folder} cannot be made: {error.strerror}.", "Set work_dir.") from error
    return {
        "path": str(folder),
        "free_gb": round(room.f_bavail * room.f_frsize / 1e9, 1),
        "free_inodes": room.f_favail,
        "filesystem": filesystems.filesystem(folder, filesystems.mounted()),
        "is_network": bool(filesystems.network(folder)),
    }


def probe(wanted: Wanted, folder: Path, command: str) -> Mapping[str, Any]:
    """What a job says of its node; what it could not say within PROBE_S is not known yet.

    `command`: of the shell, which leaves its answer in `folder` (`ems.clusters.slurm.probe`); that is removed.
    """
    name, file = f"ems-{folder.name}", folder / "probe.sh"
    try:
        aside.write(file, script.probe(command, wanted))
        queue.submit(file, script.probe_options(name, folder / "agent.log", wanted))
        return _waited(folder) or _unknown("the job that asks for it waits in the queue, or has only just begun")
    except CommandFailed as error:
        if not (heads.is_unanswered(error) or heads.why_later(error)):
            raise heads.refused(error) from error
        return _unknown(error.stderr.strip())
    finally:
        with suppress(CommandFailed):
            queue.cancel([name])
        aside.remove(folder)


def _unknown(why: str) -> Mapping[str, Any]:
    return dict.fromkeys(("database", "store"), f"not known yet: {why}")


def _waited(folder: Path) -> Mapping[str, Any] | None:
    answer, failed, give_up_at = folder / ANSWER, folder / FAILED, time.monotonic() + PROBE_S
    while time.monotonic() < give_up_at:
        if failed.exists():
            return _unknown(failed.read_text(encoding="utf-8"))
        if answer.exists():
            said: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            skew_s = round(said.pop("time") - time.time(), 1)
            return {**said, **({"clock_ahead_s": skew_s} if abs(skew_s) > SKEWED_S else {})}
        time.sleep(LOOK_S)
    return None
