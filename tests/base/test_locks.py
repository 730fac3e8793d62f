from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ems.base.locks import exclusive

HOLDER = """
import sys
from pathlib import Path
from ems.base.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


def test_only_one_process_holds_a_lock_and_a_killed_one_lets_go(tmp_path: Path):
    lock, waited = tmp_path / "below" / "a.lock", []
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "mine\n"

        def waiting() -> None:
            waited.append(True)
            holder.kill()

        with exclusive(lock, waiting):
            assert waited == [True] and holder.wait() != 0
    with exclusive(lock, waiting):
        assert waited == [True]
