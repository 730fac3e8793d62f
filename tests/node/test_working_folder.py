"""The folder in which programs run: as new for each, whatever they did to it."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ems.node.programs.working_folder import WorkingFolder


def tree(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (mode, content)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "empty").mkdir()
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "a/data.txt").write_text("1\n")
    (source / "a/b/deep.txt").write_text("deep")
    (source / "link").symlink_to("a/data.txt")
    (source / "folder").symlink_to("a")
    return source


def _replace_folder(work: Path) -> None:
    shutil.rmtree(work / "a")
    (work / "a").write_text("a file")


def _back_in_time(work: Path) -> None:
    before = (work / "a/data.txt").stat()
    (work / "a/data.txt").write_text("2\n")
    os.utime(work / "a/data.txt", ns=(before.st_atime_ns, before.st_mtime_ns))


DEEDS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "appends": (lambda work: (work / "a/data.txt").open("a").write("more"), ["a", "a/data.txt"]),
    "replaces": (lambda work: (work / "new").write_text("x") and (work / "new").rename(work / "run.sh"), ["run.sh"]),
    "adds": (lambda work: (work / "a/b/new.csv").write_text("x"), ["a", "a/b", "a/b/new.csv"]),
    "adds a folder": (
        lambda work: shutil.copytree(work / "a", work / "copy"),
        ["copy", "copy/b", "copy/b/deep.txt", "copy/data.txt"],
    ),
    "removes": (lambda work: (work / "a/b/deep.txt").unlink(), []),
    "removes a folder": (lambda work: shutil.rmtree(work / "a/b"), []),
    "turns a folder into a file": (_replace_folder, ["a"]),
    "changes a mode": (lambda work: (work / "run.sh").chmod(0o600), ["run.sh"]),
    "hides a change": (_back_in_time, []),
    "through a link": (lambda work: (work / "folder/x").write_text("x"), ["a", "a/x"]),
    "turns a link": (lambda work: (work / "link").unlink() or (work / "link").symlink_to("run.sh"), ["link"]),
    "locks a folder": (lambda work: (work / "lost").mkdir(0o500), ["lost"]),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_it_is_as_at_first_after_each_deed_and_what_was_left_is_kept(source: Path, tmp_path: Path, deed: str) -> None:
    act, kept = DEEDS[deed]
    work = WorkingFolder(source, tmp_path / "work")
    expected = tree(source)
    assert tree(work.path) == expected
    for number in range(3):
        keep = tmp_path / f"kept-{number}"
        act(work.path)
        assert work.renew(keep) is bool(kept)
        assert tree(work.path) == expected, number
        assert sorted(str(path.relative_to(keep)) for path in keep.rglob("*")) == kept
    assert work.renew(tmp_path / "kept") is False
    assert tree(source) == expected


def test_compiled_python_stays_and_is_nothing_that_was_left(source: Path, tmp_path: Path) -> None:
    work = WorkingFolder(source, tmp_path / "work")
    (work.path / "a/__pycache__").mkdir()
    assert work.renew(tmp_path / "kept") is False
    assert (work.path / "a/__pycache__").is_dir()


def test_many_deeds_in_any_order(source: Path, tmp_path: Path) -> None:
    work, expected = WorkingFolder(source, tmp_path / "work"), tree(source)
    chance = random.Random(7)
    for number in range(60):
        for deed in chance.sample(list(DEEDS), chance.randint(0, 2)):
            try:
                DEEDS[deed][0](work.path)
            except (OSError, ValueError):  # a deed before has taken its ground away
                continue
        work.renew(tmp_path / f"kept-{number}")
        assert tree(work.path) == expected, number
