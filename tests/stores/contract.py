"""What every kind of store promises."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ems.base.errors import StoreError, StoreUnavailable
from ems.stores import Content, Source, Store, Unreadable

PUT = """
import resource, sys
from pathlib import Path
from ems.stores import Source, connect
store = connect(sys.argv[1], Path())
print("begun", flush=True)
with Source(Path(sys.argv[2])) as source:
    kept = store.put(source)
"""
READ = """
assert sum(map(len, store.read(kept.digest))) == kept.size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
LARGE = 40 * 2**20 + 7  # more than two parts of an upload


def put(store: Store, file: Path) -> Content:
    with Source(file) as source:
        return store.put(source)


def written(folder: Path, content: bytes, name: str = "file") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


class StoreContract:
    """A store's tests give the fixture `store`, ready to be used, and these two."""

    @pytest.fixture
    def elsewhere(self, store: Store) -> Store:
        """Beside it, of which nothing was made."""
        raise NotImplementedError

    def objects(self, store: Store) -> list[str]:
        """What there is, but for the mark."""
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, 8 * 2**20 + 1, 16 * 2**20, LARGE])
    def test_what_is_put_is_read(self, store, tmp_path, size):
        content = os.urandom(size)
        kept = put(store, written(tmp_path, content))
        assert kept == Content(hashlib.sha256(content).hexdigest(), size)
        assert b"".join(store.read(kept.digest)) == content
        assert b"".join(store.read(kept.digest, start=size // 2)) == content[size // 2 :]
        assert self.objects(store) == [f"{kept.digest[:2]}/{kept.digest}"]

    def test_the_same_content_is_kept_once(self, store, tmp_path):
        for name in ("a", "b", "a"):
            put(store, written(tmp_path, b"same", name))
        assert len(self.objects(store)) == 1

    def test_of_many_at_once_all_are_kept(self, store, tmp_path):
        files = [written(tmp_path, bytes([n % 5]) * 10_000, f"{n}") for n in range(20)]
        threads = [threading.Thread(target=put, args=(store, file)) for file in files]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(self.objects(store)) == 5

    def test_a_place_that_is_not_marked_is_no_store(self, store, elsewhere):
        store.require()
        with pytest.raises(StoreUnavailable, match="is not the lab's store here, as it has no ems-store"):
            elsewhere.require()

    def test_what_is_not_there_is_told(self, store):
        with pytest.raises(StoreError, match=f"does not have {'0' * 64}") as caught:
            list(store.read("0" * 64))
        assert type(caught.value) is StoreError

    def test_what_cannot_be_read_is_not_the_stores_fault(self, store, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "link").symlink_to("/etc/passwd")
        for name in ("pipe", "link", "nothing", "."):
            with pytest.raises(Unreadable):
                put(store, tmp_path / name)
        assert self.objects(store) == []

    def test_to_make_it_ready_again_changes_nothing(self, store, tmp_path):
        kept = put(store, written(tmp_path, b"x"))
        store.make_ready()
        assert b"".join(store.read(kept.digest)) == b"x" and len(self.objects(store)) == 1

    def test_memory_stays_flat(self, store, tmp_path):
        """That of a process of its own, as servers of tests keep all in theirs."""
        for name, size in (("small", LARGE), ("large", 300 * 2**20)):
            with (tmp_path / name).open("wb") as opened:
                opened.truncate(size)
        peaks = [peak(store.name, tmp_path / name) for name in ("small", "large")]
        assert peaks[1] - peaks[0] < 130_000, f"{peaks} kB"


def peak(url: str, file: Path) -> int:
    """The most memory in kB that a process took to put a file into the store and to read it."""
    done = subprocess.run([sys.executable, "-c", PUT + READ, url, file], stdout=subprocess.PIPE, check=True)
    return int(done.stdout.split()[-1])


@contextmanager
def putting(url: str, file: Path) -> Iterator[None]:
    """While a process that has begun to put a file into the store goes on; it is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", PUT, url, file], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        try:
            yield
        finally:
            process.kill()
