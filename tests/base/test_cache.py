from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ems.base import cache

HOLDER = """
import sys
from pathlib import Path
from ems.base.cache import exclusive
with exclusive(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_the_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path))
    assert cache.cache_dir() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EMS_CACHE_DIR", "~/mine")
    assert cache.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("EMS_CACHE_DIR")
    assert cache.cache_dir().name == "ems" and not (tmp_path / "mine").exists()


def test_only_one_process_holds_a_lock_and_a_killed_one_lets_go(tmp_path: Path):
    lock, waited = tmp_path / "below" / "a.lock", []
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "mine\n"

        def waiting() -> None:
            waited.append(True)
            holder.kill()

        with cache.exclusive(lock, waiting):
            assert waited == [True] and holder.wait() != 0
    with cache.exclusive(lock, waiting):
        assert waited == [True]
