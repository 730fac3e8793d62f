"""A store in a folder: real files, full disks, killed processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ems.base.errors import StoreError, StoreUnavailable, UserError
from ems.stores import KEPT, Source, Store, connect
from ems.stores.file.store import FolderStore
from tests.stores.contract import StoreContract, put, putting, written


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("??/*"))


class TestFile(StoreContract):
    @pytest.fixture
    def elsewhere(self, store, tmp_path) -> Store:
        return connect("some/other", tmp_path)

    def objects(self, store: FolderStore) -> list[str]:
        assert not list((store.folder / "incoming").iterdir())
        return contents(store.folder)


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = connect(".ems/store", tmp_path)
    store.make_ready()
    assert isinstance(store, FolderStore)
    return store


def test_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for url, folder in {
        ".ems/store": tmp_path / ".ems/store",
        "/data/store": Path("/data/store"),
        "~/store": Path("/home/somebody/store"),
        "file:///data/my%20store": Path("/data/my store"),
    }.items():
        assert connect(url, tmp_path).folder == folder
    for url, told in {
        "": "names no folder",
        "file://data": "names no folder of this machine",
        "gcs://lab/x": "Did you mean gs://lab/x",
        "S3://lab": "Did you mean s3://lab",
        "ftp://me:secret@lab/x": "Allowed: a folder",
    }.items():
        with pytest.raises(UserError) as caught:
            connect(url, tmp_path)
        assert told in str(caught.value) and "secret" not in str(caught.value)


def test_what_others_change_afterwards_is_as_it_was(store, tmp_path):
    """A copy: neither a file that is still open nor another link to it changes the store."""
    file = written(tmp_path, b"first")
    (tmp_path / "link").hardlink_to(file)
    with file.open("ab") as still_open:
        kept = put(store, file)
        still_open.write(b" and more")
    (tmp_path / "link").write_bytes(b"other")
    assert b"".join(store.read(kept.digest)) == b"first"


def test_a_file_that_grows_meanwhile_is_kept_as_it_was_read(store, tmp_path):
    file, ended = written(tmp_path, os.urandom(2**20)), threading.Event()

    def grow() -> None:
        with file.open("ab") as opened:
            while not ended.is_set():
                opened.write(b"x" * 4096)
                time.sleep(0.001)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        kept = [put(store, file) for _ in range(5)]
    finally:
        ended.set()
        thread.join()
    for each in kept:
        content = b"".join(store.read(each.digest))
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (each.digest, each.size)


def test_the_same_is_stored_where_the_system_copies_nothing(store, tmp_path, monkeypatch):
    """As between two file systems of an older kernel."""
    file = written(tmp_path, os.urandom(3 * 2**20 + 7))
    asked = []

    def refuse(*given: int) -> int:
        asked.append(given)
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    kept = put(store, file)
    assert asked and b"".join(store.read(kept.digest)) == file.read_bytes()


def test_a_damaged_content_is_written_anew(store, tmp_path):
    kept = put(store, written(tmp_path, b"whole"))
    (damaged,) = store.folder.glob("??/*")
    damaged.chmod(0o600)
    damaged.write_bytes(b"wh")
    assert put(store, tmp_path / "file") == kept and b"".join(store.read(kept.digest)) == b"whole"


def test_a_place_that_is_not_marked_is_not_written(store, tmp_path):
    """As where the disk is not mounted on which the store lies."""
    (store.folder / KEPT).unlink()
    with pytest.raises(StoreUnavailable, match="is not the lab's store here"):
        put(store, written(tmp_path, b"x"))
    assert contents(store.folder) == []
    store.make_ready()
    put(store, tmp_path / "file")
    assert json.loads((store.folder / KEPT).read_text()) == {"version": 1}


def test_rights_are_those_of_the_stores_folder(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2770)
    store = connect(str(shared), tmp_path)
    store.make_ready()
    kept = put(store, written(tmp_path, b"x"))
    assert (shared / kept.digest[:2]).stat().st_mode & 0o7777 == 0o2770
    assert (shared / "incoming").stat().st_mode & 0o7777 == 0o2770
    assert (shared / kept.digest[:2] / kept.digest).stat().st_mode & 0o222 == 0


@pytest.fixture
def small(tmp_path: Path):
    """A file system of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=40", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.drill
def test_a_full_disk_is_told_and_leaves_nothing(small, tmp_path):
    store = connect(str(small), tmp_path)
    store.make_ready()
    put(store, written(tmp_path, os.urandom(2**20), "fits"))
    with pytest.raises(StoreUnavailable, match=r"small cannot be written: No space left(.|\n)*Free some space"):
        put(store, written(tmp_path, os.urandom(8 * 2**20)))
    assert len(contents(small)) == 1 and not list((small / "incoming").iterdir())
    for number in range(60):
        (small / f"{number}").touch() if len(list(small.iterdir())) < 34 else None
    with pytest.raises(StoreUnavailable, match="No space left"):
        for number in range(10):
            put(store, written(tmp_path, bytes([number])))


def test_killed_at_any_moment_a_content_is_whole_or_absent(store, tmp_path):
    file = written(tmp_path, os.urandom(30 * 2**20))
    began = time.monotonic()
    put(store, file)
    took_s = time.monotonic() - began
    (content,) = contents(store.folder)
    for part in range(8):
        (store.folder / content).unlink(missing_ok=True)
        with putting(store.name, file):
            time.sleep(took_s * part / 8)
        for found in contents(store.folder):
            assert (store.folder / found).read_bytes() == file.read_bytes()
    kept = put(connect(str(store.folder), tmp_path), file)
    assert contents(store.folder) == [f"{kept.digest[:2]}/{kept.digest}"]
    assert not list((store.folder / "incoming").iterdir()), "what killed processes had begun is removed"


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    written(tmp_path, b"", "a-file")
    for url in ("a-file", "a-file/store", "/proc/store"):
        with pytest.raises(StoreError, match=r"cannot be used: .*(.|\n)*name another folder as ems:store"):
            connect(url, tmp_path).make_ready()
    with pytest.raises(StoreUnavailable), Source(tmp_path / "a-file") as source:
        connect("nowhere", tmp_path).put(source)


def test_several_commands_make_it_ready_at_once(tmp_path):
    for number in range(20):
        stores = [connect(f"{number}/store", tmp_path) for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda each: each.make_ready(), stores))
        assert [path.name for path in (tmp_path / f"{number}/store").rglob("*") if path.is_file()] == [KEPT]
