"""Shares of a machine, taken by real processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from ems.base.errors import UserError
from ems.node import leases
from ems.node.leases import Machine, Share
from tests.processes import eventually

SPAWN = multiprocessing.get_context("spawn")
MACHINE = Machine(4, 16.0, ("0", "GPU-7a"))


def hold(folder: Path, name: str, share: Share, machine: Machine = MACHINE) -> None:
    """Take a share, say so, and keep it until somebody ends this process."""
    said = folder.parent / f"{name}.says"
    lease = leases.take(machine, share, said.write_text, folder)
    (folder.parent / f"{name}.part").write_text(" ".join(lease.gpus))
    (folder.parent / f"{name}.part").rename(folder.parent / f"{name}.has")
    time.sleep(3600)


class Holders:
    def __init__(self, folder: Path) -> None:
        self.folder = folder / "leases"
        self.started: dict[str, BaseProcess] = {}

    def start(self, name: str, share: Share, machine: Machine = MACHINE) -> None:
        """Returns once it has its ticket."""
        before = len(self.tickets())
        self.started[name] = SPAWN.Process(target=hold, args=(self.folder, name, share, machine))
        self.started[name].start()
        eventually(lambda: len(self.tickets()) > before or self.has(name))

    def tickets(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*"))

    def has(self, name: str) -> bool:
        return (self.folder.parent / f"{name}.has").exists()

    def all_that_have(self) -> set[str]:
        return {name for name in self.started if self.has(name)}

    def gpus(self, name: str) -> str:
        return (self.folder.parent / f"{name}.has").read_text()

    def says(self, name: str) -> str:
        file = self.folder.parent / f"{name}.says"
        return file.read_text() if file.exists() else ""

    def kill(self, name: str) -> None:
        process = self.started.pop(name)
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()


@pytest.fixture
def holders(tmp_path: Path) -> Iterator[Holders]:
    holders = Holders(tmp_path)
    yield holders
    for name in list(holders.started):
        holders.kill(name)


def stays(condition: Callable[[], bool], lasting_s: float = 1.0) -> bool:
    give_up_at = time.monotonic() + lasting_s
    while time.monotonic() < give_up_at:
        if not condition():
            return False
        time.sleep(0.05)
    return True


def test_runs_wait_for_room_in_the_order_in_which_they_came(holders):
    holders.start("a", Share(3))
    eventually(lambda: holders.has("a"))
    holders.start("b", Share(2))
    holders.start("c", Share(1))
    eventually(lambda: holders.says("c"))
    assert stays(lambda: holders.all_that_have() == {"a"}), "c would fit, but b came first"
    assert holders.says("b").startswith("waits for room on the server: 3 of 4 cores, 0 of 2 GPUs are taken")
    assert "1 run before it" in holders.says("c")
    holders.kill("a")
    eventually(lambda: holders.all_that_have() == {"b", "c"})


def test_one_that_is_killed_as_it_waits_holds_up_nobody(holders):
    holders.start("a", Share(3))
    eventually(lambda: holders.has("a"))
    holders.start("b", Share(4))
    holders.start("c", Share(1))
    holders.kill("b")
    eventually(lambda: holders.has("c"))


def test_others_take_their_turn_whatever_the_umask_of_who_came_first(tmp_path):
    before = os.umask(0o077)
    try:
        leases._make_shared(tmp_path / "leases")
    finally:
        os.umask(before)
    assert (tmp_path / "leases").stat().st_mode & 0o7777 == 0o1777
    assert (tmp_path / "leases/.turn").stat().st_mode & 0o777 == 0o644


def test_gpus_have_one_owner_each(holders):
    holders.start("a", Share(1, gpus=1))
    holders.start("b", Share(1, gpus=1))
    eventually(lambda: holders.all_that_have() == {"a", "b"})
    holders.start("c", Share(1, gpus=1))
    assert {holders.gpus("a"), holders.gpus("b")} == {"0", "GPU-7a"}
    assert stays(lambda: not holders.has("c"))
    freed = holders.gpus("b")
    holders.kill("b")
    eventually(lambda: holders.has("c"))
    assert holders.gpus("c") == freed


def test_memory_is_shared_too(holders):
    holders.start("a", Share(1, memory_gb=10))
    eventually(lambda: holders.has("a"))
    holders.start("b", Share(1, memory_gb=10))
    assert stays(lambda: not holders.has("b"))
    holders.kill("a")
    eventually(lambda: holders.has("b"))


def test_never_more_than_there_is_and_all_get_their_turn(holders):
    for number in range(10):
        holders.start(f"{number}", Share(1))
    seen: list[str] = []
    while len(seen) < 10:
        eventually(holders.all_that_have)
        having = holders.all_that_have()
        assert len(having) <= 4
        first = min(having, key=int)
        seen.append(first)
        holders.kill(first)
    assert sorted(seen) == sorted(map(str, range(10)))


def test_cpus_are_not_shared_where_there_are_enough(tmp_path):
    every = sorted(os.sched_getaffinity(0))
    first = leases.take(Machine(len(every), 1), Share(1), print, tmp_path / "leases")
    assert len(first.cpus) == 1 and first.cpus[0] in every
    more = leases.take(Machine(99, 1), Share(len(every) + 1), print, tmp_path / "leases")
    assert more.cpus == ()


@pytest.mark.parametrize(
    ("share", "said"),
    [(Share(5), "5 cores, of which the server has 4"), (Share(1, 17), "17 memory_gb"), (Share(1, 0, 3), "3 gpus")],
)
def test_what_it_never_gets_is_refused(share, said, tmp_path):
    with pytest.raises(UserError, match=said):
        leases.take(MACHINE, share, print, tmp_path / "leases")


def test_a_ticket_that_is_damaged_hinders_nobody(tmp_path):
    folder = tmp_path / "leases"
    leases.take(MACHINE, Share(1), print, folder)
    (folder / "00000000000000000000-x").write_text("{")
    (folder / "00000000000000000001-folder").mkdir()
    assert leases.take(MACHINE, Share(3), print, folder)
