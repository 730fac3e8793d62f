from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ems.base import aside

KILLED = """
import os, signal, sys
from pathlib import Path
from ems.base import aside
with aside.writing(Path(sys.argv[1])) as part:
    part.write_text("half of the ne")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def flushed(monkeypatch) -> list[str]:
    """What was flushed and renamed, in order."""
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def noted_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return order


def test_text_and_bytes_replace_a_file_and_are_flushed_before_and_after_the_rename(tmp_path: Path, flushed):
    file = tmp_path / "a.json"
    aside.write(file, "é")
    assert file.read_bytes() == "é".encode() and flushed == ["file", "rename", "folder"]
    aside.write(file, b"\xff", lasting=False)
    assert file.read_bytes() == b"\xff" and flushed[3:] == ["rename"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path):
    file = tmp_path / "a.csv"
    aside.write(file, "old")
    with pytest.raises(ZeroDivisionError), aside.writing(file) as part:
        part.write_text("ne")
        raise ZeroDivisionError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_killed_writer_leaves_the_old_content_and_the_next_one_replaces_its_remains(tmp_path: Path):
    file = tmp_path / "a.json"
    aside.write(file, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, file], check=False).returncode == -signal.SIGKILL
    assert file.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.json.tmp"]
    aside.write(file, "new")
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_a_file_system_that_cannot_flush_folders_does_what_it_can(tmp_path: Path, monkeypatch):
    fsync, answers = os.fsync, list[int]()

    def refusing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(answers[-1], os.strerror(answers[-1]))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    for code in aside.CANNOT_FLUSH_FOLDERS:
        answers.append(code)
        aside.write(tmp_path / "a", "new")
    answers.append(errno.EIO)  # a damaged disk
    with pytest.raises(OSError, match="Input/output"):
        aside.write(tmp_path / "a", "new")


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path):
    folder = tmp_path / "run"
    for remains in ("run", "run.tmp", "run.old"):
        (tmp_path / remains / "earlier").mkdir(parents=True)
    with pytest.raises(ZeroDivisionError), aside.making(folder) as part:
        (part / "half").mkdir(parents=True)
        raise ZeroDivisionError
    assert [path.name for path in folder.iterdir()] == ["earlier"] and list(tmp_path.iterdir()) == [folder]
    with aside.making(folder) as part:
        (part / "whole").mkdir(parents=True)
    assert [path.name for path in folder.iterdir()] == ["whole"] and list(tmp_path.iterdir()) == [folder]
