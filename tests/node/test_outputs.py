"""Agents that end while the lab's store is away, and what becomes of the files of their job."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from ems.databases import State
from ems.stores import DEFAULT, Store, connect
from tests.node.bench import Bench, bench
from tests.processes import eventually

__all__ = ["bench"]
LEAVES = """
import os, pathlib
folder = pathlib.Path(os.environ["EMS_OUTPUT_DIR"])
(folder / "model").write_text("whole")
with open(pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parent / "starts", "a") as starts:
    starts.write("x")
pathlib.Path(os.environ["EMS_RESULTS_DIR"], "a.csv").write_text("n\\n1\\n")
"""


@pytest.fixture
def store(bench: Bench) -> Store:
    """The lab's, of which nothing was made yet: so agents wait for it."""
    return connect(DEFAULT, bench.root)


def waits(run_dir: Path, times: int) -> None:
    eventually((run_dir / "job.log").exists)
    eventually(lambda: (run_dir / "job.log").read_text().count("Files wait to be stored") >= times)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_agents_that_end_while_files_wait_for_the_store_leave_them_to_the_next(
    bench: Bench, store: Store, number: int
) -> None:
    run_dir = bench.new(LEAVES)
    for times in range(1, 4):
        agent = bench.start(run_dir)
        waits(run_dir, times)
        psutil.Process(agent.pid).send_signal(number)
        agent.wait()
    store.make_ready()
    ended = bench.run(run_dir)
    assert ended.state is State.SUCCEEDED and ended.files_left == ""
    (kept,) = bench.database.outputs("e1")
    assert kept.name == "model" and b"".join(store.read(kept.digest)) == b"whole"
    assert (run_dir / "starts").read_text() == "x" and bench.values() == {"n": [1]}
    assert not (run_dir / "outputs").exists()


NOTED = """
import json, os, pathlib
noted = pathlib.Path(os.environ["EMS_OUTPUT_DIR"]).parents[1] / "noted"
noted.mkdir()
for point in (0, 1):
    said = {"point": point, "name": "model", "digest": "d", "size": 5, "media_type": "text/plain"}
    (noted / str(point)).write_text(json.dumps([said]))
pathlib.Path(os.environ["EMS_RESULTS_DIR"], "a.csv").write_text("n\\n1\\n")
"""


def test_what_other_machines_have_stored_is_recorded(bench: Bench, store: Store) -> None:
    store.make_ready()
    run_dir = bench.new(NOTED)
    assert bench.run(run_dir).state is State.SUCCEEDED
    kept = [(each.point, each.name, each.digest, each.attempt) for each in bench.database.outputs("e1")]
    assert kept == [(0, "model", "d", 1), (1, "model", "d", 1)]
    assert not (run_dir / "outputs").exists()
