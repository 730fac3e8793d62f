"""Files in EMS_OUTPUT_DIR on a bad day: killed again and again, in great numbers, with names that nobody expects."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.clusters.slurm_server import SlurmServer, slurm
from tests.end_to_end.conftest import User
from tests.end_to_end.outputs import COMMAND, described, objects, outputs
from tests.end_to_end.slurm_sweep import Sweep
from tests.end_to_end.slurm_user import ROOT, SlurmUser
from tests.end_to_end.slurm_user import user as of_slurm
from tests.end_to_end.test_kills import SWEEP_VICTIMS, kill_all, next_command

__all__ = ["of_slurm", "slurm"]
POINTS = 60
LEAVES = """
import os, pathlib, time
def f(n):
    time.sleep(PAUSE_S)
    with open("CALLS", "a") as calls:
        calls.write(f"{n}\\n")
    folder = pathlib.Path(os.environ["EMS_OUTPUT_DIR"])
    (folder / "of").mkdir()
    (folder / "of/all.bin").write_bytes(b"same" * 50_000)
    (folder / "own.txt").write_text(f"{n} " * 1000)
    return {"twice": 2 * n}
"""
SAME = b"same" * 50_000
LARGE_MB, LARGE = 150, 6
HEAVY = f"""
import os, pathlib
folder = pathlib.Path(os.environ["EMS_OUTPUT_DIR"])
for number in range({LARGE}):
    with (folder / f"{{number}}.bin").open("wb") as file:
        for _ in range({LARGE_MB}):
            file.write(bytes([number]) * 10**6)
"""
MANY = 10_000
NUMEROUS = f"""
import os, pathlib
folder = pathlib.Path(os.environ["EMS_OUTPUT_DIR"])
for number in range({MANY}):
    (folder / f"{{number:05}}").write_text(str(number))
"""
NAMES = [
    b"-rf",
    b"a b",
    b"new\nline",
    b"\x1b[31mred",
    b"[bold]x",
    b"\xff\xfe",
    b"..a",
    b"x" * 255,
    "ä".encode(),
    b"'\"$(id)`",
]
HOSTILE = f"""
import os
folder = os.environb[b"EMS_OUTPUT_DIR"]
for name in {NAMES!r}:
    open(os.path.join(folder, name), "wb").write(name)
deep = os.path.join(folder, *[b"d" * 100] * 8)
os.makedirs(deep)
open(os.path.join(deep, b"f"), "wb").write(b"deep")
deeper = os.path.join(folder, *[b"e" * 100] * 12)
os.makedirs(deeper)
open(os.path.join(deeper, b"f"), "wb").write(b"too deep")
os.symlink("/etc/passwd", os.path.join(folder, b"elsewhere"))
os.mkfifo(os.path.join(folder, b"pipe"))
"""


def assert_all_of_points(user: User, points: list[int], stack: str) -> None:
    """Each point's files, whole, and no other; `points`: what each was called with, in the order of the points."""
    found = {(each["point"], each["name"]): (user.root / each["path"]).read_bytes() for each in outputs(user, stack)}
    expected = {(point, "own.txt"): (f"{n} " * 1000).encode() for point, n in enumerate(points)}
    expected |= {(point, "of/all.bin"): SAME for point, _ in enumerate(points)}
    assert found == expected
    assert_nothing_waits(user)
    assert objects(user) == sorted({hashlib.sha256(content).hexdigest() for content in expected.values()})


def assert_nothing_waits(user: User) -> None:
    assert not list((user.root / ".ems/runs").glob("*/outputs"))
    assert not list((user.root / ".ems/store/incoming").iterdir())


def has_succeeded(user: User) -> bool:
    return user.query("SELECT state FROM experiment") == [("succeeded",)]


@pytest.mark.parametrize("seed", range(3))
def test_a_sweep_that_is_killed_again_and_again_has_the_files_of_each_point(
    user: User, tmp_path: Path, seed: int
) -> None:
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    code = LEAVES.replace("PAUSE_S", "0.5").replace("CALLS", str(tmp_path / "calls"))
    job = {"function": "experiments.e.job:f", "sweep": {"n": {"range": [1, POINTS, 1]}}}
    described(user, code, job, {"table": "e"}, environment="svd", cluster={"kind": "laptop", "workers": 2})
    random, kills = Random(seed), 0
    command = user.start("up", "e")
    while kills < 8:
        time.sleep(random.uniform(0.5, 4))
        if command.poll() is None and (found := SWEEP_VICTIMS[victim := random.choice(sorted(SWEEP_VICTIMS))](user)):
            kill_all(user, found, victim)
            kills += 1
        if command.poll() is not None:
            if has_succeeded(user):
                break
            command = user.start(*next_command(user))
    command.wait()
    for _ in range(3):
        if not has_succeeded(user):
            user.ems(*next_command(user), expect=None)
    assert kills >= 3, "it was over too soon"
    assert_all_of_points(user, list(range(1, POINTS + 1)), "e")


def parts(user: User) -> set[Path]:
    """Of large files, in the store, which has not all of them yet."""
    found = set()
    for path in (user.root / ".ems/store/incoming").glob("*"):
        with suppress(FileNotFoundError):  # it was just completed
            found |= {path} if path.stat().st_size > 10**6 else set()
    return found


def test_a_command_that_is_killed_while_its_files_are_stored_has_them_whole(user: User) -> None:
    described(user, HEAVY, COMMAND)
    command = user.start("up", "e")
    for pause_s in (0.0, 0.2):
        before = parts(user)
        user.wait(lambda before=before: parts(user) - before)
        time.sleep(pause_s)
        kill_all(user, user.processes(), "all")
        command.wait()
        command = user.start("up", "e")
    assert command.wait() == 0, user.said(command)
    assert [(each["name"], each["size"]) for each in outputs(user)] == [
        (f"{number}.bin", LARGE_MB * 10**6) for number in range(LARGE)
    ]
    for number in range(LARGE):
        assert (user.root / f"got/{number}.bin").read_bytes() == bytes([number]) * (LARGE_MB * 10**6)
    assert user.query("SELECT max(attempt) FROM run") == [(3,)]
    assert_nothing_waits(user)


def test_ten_thousand_files_are_kept(user: User) -> None:
    described(user, NUMEROUS, COMMAND)
    user.ems("up", "e")
    found = outputs(user)
    assert [each["name"] for each in found] == [f"{number:05}" for number in range(MANY)]
    assert all((user.root / each["path"]).read_text() == str(int(each["name"])) for each in found)
    assert_nothing_waits(user)


def test_any_name_is_kept_listed_and_brought(user: User) -> None:
    described(user, HOSTILE, COMMAND)
    user.ems("up", "e")
    listed = json.loads(user.ems("outputs", "e", "--json").stdout)
    found = {each["digest"] for each in listed}
    assert found == {hashlib.sha256(content).hexdigest() for content in [*NAMES, b"deep"]}
    shown = user.ems("outputs", "e").stdout
    assert "\x1b" not in shown and "new\nline" not in shown and "[bold]x" in shown
    user.ems("outputs", "e", "--to", "got")
    contents = [path.read_bytes() for path in (user.root / "got").rglob("*") if path.is_file()]
    assert sorted(contents) == sorted([*NAMES, b"deep"])
    left = {os.fsencode(path.name) for path in (user.root / ".ems/runs").glob("*/left/attempt-1/EMS_OUTPUT_DIR/**/*")}
    assert {b"elsewhere", b"pipe"} <= left
    assert "elsewhere" in user.ems("logs", "e").stdout


@pytest.mark.xdist_group("slurm")
@pytest.mark.timeout(1800)
def test_on_a_slurm_machine_workers_and_heads_that_are_killed_lose_no_file(
    of_slurm: SlurmUser, slurm: SlurmServer
) -> None:
    of_slurm.place(partition=["normal"], account="grant", processes_per_job=2, workers=4, head={"computes": False})
    sweep = Sweep(of_slurm, slurm, 300, 0.1, LEAVES)
    command = sweep.begin()
    for words in (("ems.node.driver.joining",), ("ems.clusters.slurm.head",), ("ems.node.driver.worker ",)):
        sweep.computes(10)
        found = of_slurm.wait(lambda words=words: sweep.processes(*words))
        kill_all(of_slurm, found[:1], "one")
        sweep.hurry()
    sweep.finish(command)
    assert of_slurm.asked("SELECT count(*), count(DISTINCT n) FROM e") == [(300, 300)]
    assert_all_of_points(of_slurm, list(range(1, 301)), "s")
