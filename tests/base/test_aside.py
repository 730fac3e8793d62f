from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ems.base import aside

SOMEBODY = 65534  # a user's number
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


def as_somebody(folder: Path, call: Callable[[], None]) -> int:
    """Call it in `folder`, as a user whom permissions bind (not as root); 0 if it raised nothing."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.chdir(folder)
            if os.getuid() == 0:
                os.setuid(SOMEBODY)
            call()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read_only_tree(folder: Path) -> None:
    """As a copy of read-only inputs is, or Go's module cache: with folders that nothing can be taken out of."""
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    (inner / "file").chmod(0o444)
    (folder / "link").symlink_to("/")
    for path in (inner, folder / "a", folder):
        path.chmod(0o555 if path != inner else 0)
    for path in (folder.parent, folder, folder / "a", inner, inner / "file"):
        if os.getuid() == 0:
            os.chown(path, SOMEBODY, SOMEBODY)


def test_folders_that_a_job_made_read_only_are_removed_and_replaced(tmp_path: Path):
    for name in ("run", "run.tmp", "run.old"):
        read_only_tree(tmp_path / name)

    def replaced() -> None:
        with aside.making(Path("run")) as part:
            part.mkdir()
        aside.remove(Path("run"))

    assert as_somebody(tmp_path, lambda: shutil.rmtree("run")) != 0
    assert as_somebody(tmp_path, replaced) == 0
    assert list(tmp_path.iterdir()) == []


def test_files_and_links_are_removed_and_what_links_lead_to_stays(tmp_path: Path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    (tmp_path / "file").touch()
    for name in ("link", "file", "never there"):
        aside.remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
