"""What Dask does in the driver while its workers compute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import PATIENCE_S

WATCHED_S = 3.0
IDLE = """
import sys, time
from pathlib import Path
from tornado.ioloop import PeriodicCallback
from ems.node.driver.worker_process import Limits
from ems.node.driver.workers import Workers

calls, run = [], PeriodicCallback._run
def counted(self):
    calls.append(self)
    return run(self)
PeriodicCallback._run = counted
if __name__ == "__main__":
    workers = Workers(2, "order.json", Limits(), Path(sys.argv[1]))
    begun = len(calls)
    time.sleep(float(sys.argv[2]))
    print(len(calls) - begun)
    workers.close()
"""


def test_dask_seldom_looks_at_itself_beside_dear_points(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IDLE, str(tmp_path / "dask"), str(WATCHED_S)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    assert 0 < int(ran.stdout) / WATCHED_S < 20  # with Dask's defaults over 150
