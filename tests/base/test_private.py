"""Who may read what EMS makes in a lab."""

from __future__ import annotations

import os
import stat

import pytest

from ems.base.private import make_file, make_folder


@pytest.fixture(autouse=True)
def usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_that_are_made_are_the_owners_alone_and_others_stay(tmp_path):
    tmp_path.chmod(0o755)
    make_folder(tmp_path / "a/b")
    assert (mode(tmp_path), mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o755, 0o700, 0o700)
    (tmp_path / "a").chmod(0o750)
    make_folder(tmp_path / "a/b")
    make_folder(tmp_path / "a/c")
    assert (mode(tmp_path / "a"), mode(tmp_path / "a/c")) == (0o750, 0o700)


def test_a_file_that_is_made_is_the_owners_alone_and_another_stays(tmp_path):
    make_file(tmp_path / "new")
    (tmp_path / "old").write_text("kept")
    make_file(tmp_path / "old")
    assert mode(tmp_path / "new") == 0o600
    assert mode(tmp_path / "old") == 0o644 and (tmp_path / "old").read_text() == "kept"


def test_what_is_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        make_folder(tmp_path / "file")
    with pytest.raises(OSError):
        make_folder(tmp_path / "file/below")
