"""Every file that Pulumi keeps in a folder, damaged in every way: the next command, or the one after it, succeeds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from ems import lab
from ems.base.errors import EngineError
from ems.engine import manners
from ems.engine.runner import Pulumi, make_ready, stacks
from ems.engine.turn import turn

STACK = "pi"


def folder_in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "foreign": lambda file: file.write_text('{"a": 1}'),
    "rubbish": lambda file: file.write_bytes(bytes(range(256))),
    "missing": lambda file: file.unlink(),
    "unreadable": folder_in_its_place,  # for root too
}
FILES = [file + end for file in ("e.json", "e.json.bak", "meta.yaml", "lock") for end in ("", ".attrs")]


@pytest.fixture(scope="session")
def used_lab(lab_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab whose stack has a state that was written twice."""
    root = tmp_path_factory.mktemp("used") / "lab"
    shutil.copytree(lab_template, root, symlinks=True)
    pulumi = Pulumi.of(lab.read(root))
    make_ready(pulumi, STACK)
    exported = root / ".ems" / "exported"
    exported.write_text(pulumi.quietly("stack", "export", "--stack", STACK))
    pulumi.quietly("stack", "import", "--stack", STACK, "--file", str(exported))
    return root


@pytest.fixture
def pulumi(used_lab: Path, tmp_path: Path) -> Pulumi:
    shutil.copytree(used_lab, tmp_path / "lab", symlinks=True)
    return Pulumi.of(lab.read(tmp_path / "lab"))


def place(pulumi: Pulumi, name: str) -> Path:
    """The file that the table calls `name`; a lock is made as a process leaves it that was killed."""
    backend = pulumi.backend()
    assert backend
    if name.startswith("e.json"):
        return backend / "stacks" / pulumi.lab.name / name.replace("e.json", f"{STACK}.json")
    if not name.startswith("lock"):
        return backend / name
    lock = backend / "locks/organization" / pulumi.lab.name / STACK / "f6a1ae2b.json"
    lock.parent.mkdir(parents=True, exist_ok=True)
    dead = subprocess.Popen(["true"])
    dead.wait()
    made = {"pid": dead.pid, "hostname": os.uname().nodename, "timestamp": "2026-01-01T00:00:00.123456789Z"}
    lock.write_text(json.dumps(made))
    manners.attributes(lock).write_text('{"md5":"AAAAAAAAAAAAAAAAAAAAAA=="}')
    return manners.attributes(lock) if name.endswith(".attrs") else lock


def update(pulumi: Pulumi) -> None:
    """What every command does before Pulumi updates a stack, and an update's reading and writing."""
    with turn(pulumi, STACK):
        make_ready(pulumi, STACK)
        pulumi.quietly("stack", "import", "--stack", STACK, "--file", str(pulumi.lab.root / ".ems" / "exported"))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_made_again_or_told_once(pulumi: Pulumi, name: str, damage: str) -> None:
    """What a file says is derived anew, or its copy is taken and that is told once: no dead end."""
    file = place(pulumi, name)
    DAMAGES[damage](file)
    if name == "e.json" and damage != "missing":
        content = file.read_bytes() if file.is_file() else b""
        with pytest.raises(EngineError) as caught:
            update(pulumi)
        (kept,) = file.parent.glob(f"{file.name}.damaged-*")
        assert str(kept) in caught.value.message and "Repeat the command" in caught.value.hint
        assert (kept.read_bytes() if kept.is_file() else b"") == content
    update(pulumi)
    assert stacks(pulumi) == [STACK]


@pytest.mark.parametrize("damage", ["empty", "unreadable"])
def test_a_state_without_a_copy_that_reads_begins_anew(pulumi: Pulumi, damage: str) -> None:
    for name in ("e.json", "e.json.bak"):
        DAMAGES[damage](place(pulumi, name))
    with pytest.raises(EngineError, match="was damaged") as caught:
        stacks(pulumi)
    assert "begins anew" in caught.value.hint
    assert stacks(pulumi) == []
    update(pulumi)
    assert stacks(pulumi) == [STACK]


def test_the_newest_copy_that_reads_is_taken(pulumi: Pulumi) -> None:
    history = (pulumi.backend() or Path()) / "history" / pulumi.lab.name / STACK
    history.mkdir(parents=True)
    for number, version in ((1, 3), (2, 3), (3, None)):
        kept = json.loads(place(pulumi, "e.json").read_text()) | {"marked": number}
        (history / f"{STACK}-{number}.checkpoint.json").write_text(json.dumps(kept) if version else "{")
    for name in ("e.json", "e.json.bak"):
        DAMAGES["cut"](place(pulumi, name))
    with pytest.raises(EngineError, match="was damaged") as caught:
        stacks(pulumi)
    assert f"{STACK}-2.checkpoint.json" in caught.value.hint
    assert json.loads(place(pulumi, "e.json").read_text())["marked"] == 2


@pytest.mark.parametrize("key", ["stack", "Stack"])
def test_a_state_is_left_alone_however_an_engine_spells_it(pulumi: Pulumi, key: str) -> None:
    """3.200.0 has capital letters there after an update that was interrupted early."""
    state = place(pulumi, "e.json")
    state.write_text(json.dumps({"version": 3, "checkpoint": {key: "organization/lab/pi"}}))
    assert stacks(pulumi) == [STACK]
    assert not list(state.parent.glob("*.damaged-*"))


def test_a_damaged_lock_is_held_while_an_engine_works_in_the_lab(pulumi: Pulumi) -> None:
    """Whose it is, it does not tell: so nobody's who may live is taken away."""
    DAMAGES["empty"](place(pulumi, "lock"))
    sleeper = Path(shutil.copy(shutil.which("sleep") or "", pulumi.lab.root / ".ems/pulumi"))
    with subprocess.Popen([sleeper, "60"], cwd=pulumi.lab.root) as living:
        seen: list[str] = []

        def waiting(holder: str) -> None:
            seen.append(holder)
            living.kill()
            living.wait()

        with turn(pulumi, STACK, waiting):
            assert seen == [f"Stack {STACK} is being updated by process {living.pid}"]
