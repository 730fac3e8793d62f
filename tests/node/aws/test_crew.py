"""How machines of workers find the head: what the bucket says, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from ems.node.aws import crew as crews
from ems.node.aws.boot import MEETING, NodeConfig
from ems.node.aws.crew import AwsCrew
from ems.node.aws.meeting import Meeting
from ems.node.driver.points import CERTIFICATE, KEY, ORDER, SCHEDULER
from tests.clusters.aws.cloud import REGION, Cloud
from tests.node.aws.test_signed import BUCKET, cloud

__all__ = ["cloud"]
TOLD = NodeConfig("head", REGION, BUCKET, "ems/runs/e/", "ems/environments/", "/var/lib/ems", ("head", "workers"), 3)


@pytest.fixture
def crew(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AwsCrew:
    monkeypatch.setattr(crews, "LOOK_S", 0.0)
    monkeypatch.setattr(crews, "metadata", {"meta-data/local-ipv4": "10.0.0.7"}.get)
    (tmp_path / "joining").mkdir()
    for name in (CERTIFICATE, KEY, SCHEDULER):
        (tmp_path / "joining" / name).write_text(f"the {name}")
    (tmp_path / ORDER).write_text("{}")
    return AwsCrew(tmp_path, TOLD, grace_s=5.0)


def met(cloud: Cloud) -> Meeting | None:
    """What workers are told; AssertionError if nothing is there to be told."""
    listed = cloud.client("s3").list_objects_v2(Bucket=BUCKET).get("Contents", [])
    assert [each["Key"] for each in listed] == [f"ems/runs/e/{MEETING}"]
    return Meeting.of(cloud.client("s3").get_object(Bucket=BUCKET, Key=listed[0]["Key"])["Body"].read().decode())


def test_the_driver_counts_all_machines_of_the_run(crew):
    assert crew.joining.host == "10.0.0.7" and crew.joining.workers == 4 * crew.joining.here


def test_workers_are_told_once_the_driver_listens_with_all_they_need(crew, cloud, tmp_path):
    crew.begin(["python", "join"], {"A": "1"}, tmp_path / "code")
    crew.tend(10)
    with pytest.raises(AssertionError):
        met(cloud)  # what listens there is of an earlier driver
    (tmp_path / "joining" / SCHEDULER).write_text("tls://10.0.0.7:8786")
    crew.tend(10)
    told = met(cloud)
    assert told and (told.command, told.variables, told.folder) == (["python", "join"], {"A": "1"}, f"{tmp_path}/code")
    assert told.files[str(tmp_path / "joining" / SCHEDULER)] == "tls://10.0.0.7:8786"
    assert {Path(path).name for path in told.files} == {CERTIFICATE, KEY, SCHEDULER, ORDER}
    assert not (tmp_path / MEETING).exists()


def test_a_bucket_that_is_away_is_asked_again(crew, cloud, tmp_path):
    crew.begin(["python"], {}, tmp_path)
    (tmp_path / "joining" / SCHEDULER).write_text("here")
    cloud.trouble(f"PUT /{BUCKET}/", "NoSuchBucket", 409)
    crew.tend(10)
    with pytest.raises(AssertionError):
        met(cloud)
    crew.tend(10)
    assert met(cloud)


def test_at_the_end_there_is_nobody_to_work_for(crew, cloud, tmp_path):
    crew.begin(["python"], {}, tmp_path)
    (tmp_path / "joining" / SCHEDULER).write_text("here")
    crew.tend(10)
    crew.end()
    assert met(cloud) is None
    crew.tend(10)
    assert met(cloud) is None
