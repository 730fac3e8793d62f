"""Cores, memory and GPUs of one machine, shared by the runs of all its users of EMS, in the order in which they came.

A run that wants some has a ticket, a file on the machine's own disk, and holds a lock on it as long as its process
lives: what a killed one had is free at once. Everybody reads the tickets of all, and nobody has to run for that.
Standard library alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from ems.base.backoff import Backoff
from ems.base.errors import UserError
from ems.base.messages import Say, counted

FOLDER = Path(os.environ.get("EMS_LEASES", "/var/tmp/ems-leases"))
FIRST_LOOK_S, LONGEST_LOOK_S = 0.2, 2.0


@dataclass(frozen=True)
class Machine:
    """What runs of EMS may have together. `gpus`: by their names for CUDA_VISIBLE_DEVICES."""

    cores: int
    memory_gb: float
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Share:
    """What one run takes of it."""

    cores: int
    memory_gb: float = 0.0
    gpus: int = 0


@dataclass(frozen=True)
class Lease:
    """What a run was given. `cpus`: numbers of its own, none where more cores are declared than there are."""

    cpus: tuple[int, ...]
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class _Ticket:
    """Of a living process; `lease`: None as long as it waits."""

    name: str
    share: Share
    lease: Lease | None


def refuse(machine: Machine, share: Share) -> None:
    """UserError for a run that would never get what it wants."""
    for what, wanted, has in (
        ("cores", share.cores, machine.cores),
        ("memory_gb", share.memory_gb, machine.memory_gb),
        ("gpus", share.gpus, len(machine.gpus)),
    ):
        if wanted > has:
            raise UserError(
                f"The run wants {wanted:g} {what}, of which the server has {has:g}.",
                f"Lower `{what}` of place or experiment.",
            )


def take(machine: Machine, share: Share, say: Say, folder: Path = FOLDER) -> Lease:
    """Wait for a share, until it is this process's turn and there is room; held until the process ends.

    `say` hears what it waits for. UserError as of `refuse`; OSError: the folder cannot be written.
    """
    refuse(machine, share)
    _make_shared(folder)
    ticket, name = _ticket(folder, share)
    pauses, said = Backoff(FIRST_LOOK_S, LONGEST_LOOK_S), ""
    while True:
        with _turn(folder):
            tickets = _living(folder)
            lease = _given(machine, share, name, tickets)
            if lease:
                _write(ticket, share, lease)
                return lease
        waits = _waits(machine, name, tickets)
        if waits != said:
            say(waits)
            said = waits
        pauses.wait()


def _given(machine: Machine, share: Share, name: str, tickets: Sequence[_Ticket]) -> Lease | None:
    """None if others came first, or take what it wants."""
    if any(each.lease is None and each.name < name for each in tickets):
        return None
    taken = [each for each in tickets if each.lease]
    free_gpus = [gpu for gpu in machine.gpus if not any(gpu in each.lease.gpus for each in taken if each.lease)]
    cores = machine.cores - sum(each.share.cores for each in taken)
    memory_gb = machine.memory_gb - sum(each.share.memory_gb for each in taken)
    if share.cores > cores or share.memory_gb > memory_gb or share.gpus > len(free_gpus):
        return None
    return Lease(_cpus(share.cores, taken), tuple(free_gpus[: share.gpus]))


def _cpus(count: int, taken: Sequence[_Ticket]) -> tuple[int, ...]:
    """CPUs that nobody else has; none if there are not so many, or this system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    others = {cpu for each in taken if each.lease for cpu in each.lease.cpus}
    free = sorted(os.sched_getaffinity(0) - others)
    return tuple(free[:count]) if len(free) >= count else ()


def _waits(machine: Machine, name: str, tickets: Sequence[_Ticket]) -> str:
    before = sum(each.lease is None and each.name < name for each in tickets)
    cores = sum(each.share.cores for each in tickets if each.lease)
    gpus = sum(len(each.lease.gpus) for each in tickets if each.lease)
    others = f", {counted(before, 'run')} before it" if before else ""
    of_gpus = f", {gpus} of {counted(len(machine.gpus), 'GPU')}" if machine.gpus else ""
    return f"waits for room on the server{others}: {cores} of {counted(machine.cores, 'core')}{of_gpus} are taken"


# Tickets


_held: list[IO[str]] = []  # open as long as this process lives


def _make_shared(folder: Path) -> None:
    """For all users of the machine, of whom each may remove their own: it is there with its rights, or not at all."""
    if not folder.is_dir():
        made = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
        made.mkdir(parents=True)
        made.chmod(0o1777)
        try:
            made.rename(folder)
        except OSError:  # another's has a file already
            made.rmdir()
    with suppress(FileExistsError), (folder / ".turn").open("x") as turn:
        os.fchmod(turn.fileno(), 0o644)  # whatever the umask of who came first


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One process looks and decides at a time."""
    with (folder / ".turn").open() as file:  # a lock needs no right to write, which other users do not have
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ticket(folder: Path, share: Share) -> tuple[Path, str]:
    """A new one, which is locked before others see it."""
    name = f"{time.time_ns():020}-{uuid.uuid4().hex[:12]}"
    hidden, final = folder / f".{name}", folder / name
    file = hidden.open("w", encoding="utf-8")
    hidden.chmod(0o644)
    fcntl.flock(file, fcntl.LOCK_EX)
    os.set_inheritable(file.fileno(), False)  # what the run starts does not hold it
    _held.append(file)
    _write(hidden, share, None)
    hidden.rename(final)
    return final, name


def _write(ticket: Path, share: Share, lease: Lease | None) -> None:
    """In place: its lock is on this very file; readers take turns with who writes."""
    said = {"share": asdict(share), "lease": asdict(lease) if lease else None}
    ticket.write_text(json.dumps(said), encoding="utf-8")


def _living(folder: Path) -> list[_Ticket]:
    """The tickets of processes that live, the oldest first; those of others are removed."""
    found = []
    for path in sorted(folder.glob("[0-9]*")):
        with suppress(OSError, ValueError, TypeError, LookupError), path.open(encoding="utf-8") as file:
            if not _is_held(file):
                path.unlink()
                continue
            said = json.load(file)
            lease = said["lease"] and Lease(tuple(said["lease"]["cpus"]), tuple(said["lease"]["gpus"]))
            found.append(_Ticket(path.name, Share(**said["share"]), lease))
    return found


def _is_held(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
