"""What an instance asks of AWS with the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ems.node.aws import signed
from ems.node.aws.signed import Aws
from tests.clusters.aws.cloud import REGION, Cloud, running

BUCKET = "lab-of-tests"
ROLE = "meta-data/iam/security-credentials/"
WHO = {ROLE: "node", ROLE + "node": json.dumps({"AccessKeyId": "id", "SecretAccessKey": "word", "Token": "token"})}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with running() as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        monkeypatch.setattr(signed, "metadata", lambda path: WHO.get(path, ""))
        monkeypatch.setattr(signed, "PAUSE_S", 0.01)
        found.client("s3").create_bucket(Bucket=BUCKET)
        yield found


@pytest.fixture
def aws(cloud: Cloud) -> Aws:
    return Aws(REGION, BUCKET)


def test_what_is_put_is_what_is_got(aws, cloud, tmp_path):
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(b"some rows\n" * 1000)
    aws.put("a folder/a+b.txt", file)
    assert cloud.client("s3").get_object(Bucket=BUCKET, Key="a folder/a+b.txt")["Body"].read() == file.read_bytes()
    aws.get("a folder/a+b.txt", back)
    assert back.read_bytes() == file.read_bytes()


def test_what_is_not_there_or_not_what_it_should_be_leaves_no_file(aws, cloud, tmp_path):
    with pytest.raises(FileNotFoundError):
        aws.get("nothing", tmp_path / "file")
    cloud.client("s3").put_object(Bucket=BUCKET, Key="key", Body=b"other")
    with pytest.raises(OSError, match="not 00"):
        aws.get("key", tmp_path / "file", "00")
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("status", [403, 503])
def test_what_may_pass_is_tried_again(aws, cloud, tmp_path, status):
    cloud.trouble("PUT /lab-of-tests/key", "SlowDown", status, times=3)
    file = tmp_path / "file"
    file.write_bytes(b"content")
    aws.put("key", file)
    assert cloud.client("s3").get_object(Bucket=BUCKET, Key="key")["Body"].read() == b"content"
