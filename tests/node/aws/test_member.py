"""What has the workers of an instance join: those that the meeting wants, as long as it does."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from ems.node.agent.config import AgentConfig
from ems.node.aws import member as members
from ems.node.aws.boot import MEETING
from ems.node.aws.meeting import Meeting
from ems.node.aws.member import Member
from ems.node.driver.points import ORDER
from ems.node.job import carried
from ems.node.job.outputs import FOLDER, READY
from ems.stores import DEFAULT, connect
from tests.clusters.aws.cloud import Cloud
from tests.node.aws.test_crew import TOLD
from tests.node.aws.test_signed import BUCKET, cloud
from tests.node.bench import bundle, command_spec
from tests.processes import eventually

__all__ = ["cloud"]
AT_WORK = "import os, pathlib, time; pathlib.Path(os.environ['WHERE'], str(os.getpid())).touch(); time.sleep(600)"
FAILS = "import sys; sys.exit(1)"


@dataclass
class At:
    """A machine of workers: its folder, its process as a thread of this one, and what it returns."""

    root: Path
    cloud: Cloud
    member: Member
    code: int | None = None

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    def tell(self, script: str) -> None:
        """Have workers run this, by the bucket."""
        where = self.root / "began"
        where.mkdir(exist_ok=True)
        files = {str(self.run_dir / ORDER): "{}"}
        variables = {"PATH": "/usr/bin:/bin", "WHERE": str(where)}
        self.say(Meeting([sys.executable, "-c", script], variables, str(self.root), files).told())

    def say(self, told: str) -> None:
        self.cloud.client("s3").put_object(Bucket=BUCKET, Key=f"{TOLD.run}{MEETING}", Body=told.encode())

    def living(self) -> list[int]:
        """Numbers of the workers that began and are there."""
        began = (int(file.name) for file in (self.root / "began").glob("*"))
        return [pid for pid in began if Path(f"/proc/{pid}/environ").exists() and Path(f"/proc/{pid}/exe").exists()]


@pytest.fixture
def at(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[At]:
    monkeypatch.setattr(members, "LOOK_S", 0.05)
    monkeypatch.setattr(members, "metadata", lambda _: "i-1")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    (tmp_path / "run").mkdir()
    package = str(bundle(tmp_path, command_spec(), ""))
    AgentConfig("e", "sqlite:///none.db", str(tmp_path), package, sys.prefix).write(tmp_path / "run")
    (tmp_path / "config.json").write_text(json.dumps(asdict(replace(TOLD, role="workers"))))
    found = At(tmp_path, cloud, Member(tmp_path / "run", Path(sys.prefix)))
    thread = threading.Thread(target=lambda: setattr(found, "code", found.member.run()))
    thread.start()
    yield found
    found.member._stop()
    thread.join()


def having(count: int, at: At) -> Callable[[], bool]:
    return lambda: len(at.living()) == count


def test_workers_join_when_they_are_told_and_end_when_there_is_nobody_to_work_for(at):
    at.tell(AT_WORK)
    eventually(having(2, at))
    first = set(at.living())
    assert json.loads((at.run_dir / ORDER).read_text()) == {"carried": str(at.run_dir / carried.FOLDER)}
    at.tell(AT_WORK + "  # another driver")
    eventually(lambda: len(set(at.living()) - first) == 2 and not first & set(at.living()))
    at.say("")
    eventually(having(0, at))
    assert at.code is None


def test_a_worker_that_is_gone_is_replaced(at):
    at.tell(AT_WORK)
    eventually(having(2, at))
    gone = at.living()[0]
    at.member._workers[0][0].kill()
    at.member._workers[1][0].kill()
    eventually(lambda: len(at.living()) == 2 and gone not in at.living())


def test_workers_that_cannot_begin_again_and_again_end_it(at):
    at.tell(FAILS)
    eventually(lambda: at.code == 1)


def test_what_points_leave_is_stored_and_noted(at):
    connect(DEFAULT, at.root).make_ready()
    left = at.run_dir / FOLDER / READY / "point-7"
    left.mkdir(parents=True)
    (left / "model.bin").write_bytes(b"whole")
    (note,) = carried.awaited(at.run_dir / FOLDER, at.run_dir / carried.FOLDER, [7])
    assert (note["point"], note["name"], note["size"]) == (7, "model.bin", 5)
    assert b"".join(connect(DEFAULT, at.root).read(note["digest"])) == b"whole"
