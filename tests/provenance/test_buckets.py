"""Inputs from s3 (moto's server) and gs (a stand-in), on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pyarrow.fs import FileSystem

from ems.base.errors import ProvenanceError
from ems.provenance.downloads import download
from tests.moto_server import log_in, moto, running
from tests.provenance.gs_server import CONTENT, KEY

__all__ = ["moto"]


@pytest.fixture
def s3(moto, tmp_path, monkeypatch) -> str:
    """A bucket with the file."""
    log_in(tmp_path, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    bucket, _ = FileSystem.from_uri("s3://lab-data?allow_bucket_creation=true")
    bucket.create_dir("lab-data")
    with bucket.open_output_stream(f"lab-data/{KEY}") as file:
        file.write(CONTENT)
    return "s3://lab-data"


@pytest.fixture
def gs(tmp_path, monkeypatch) -> Iterator[str]:
    """A bucket with the file; the credentials are application-default ones, the key of a service account."""
    key = trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes().decode()
    account = {"type": "service_account", "private_key": key, "client_email": "lab@example.org", "client_id": "1"}
    about = {"project_id": "lab", "private_key_id": "1", "token_uri": "http://127.0.0.1:9/token"}
    (tmp_path / "account.json").write_text(json.dumps({**account, **about}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    with running("-m", "tests.provenance.gs_server") as url:
        monkeypatch.setenv("CLOUD_STORAGE_EMULATOR_ENDPOINT", url)
        yield "gs://lab-data"


@pytest.fixture(params=["s3", "gs"])
def bucket(request) -> str:
    return str(request.getfixturevalue(request.param))


def got(url: str, part: Path) -> list[tuple[int, int | None]]:
    told: list[tuple[int, int | None]] = []
    download(url, part, lambda done, total: told.append((done, total)))
    return told


def test_a_file_arrives_whole_or_goes_on_where_it_was(bucket, tmp_path):
    part = tmp_path / "a.part"
    told = got(f"{bucket}/{KEY}", part)
    assert part.read_bytes() == CONTENT and len(told) > 1 and told[-1] == (len(CONTENT), len(CONTENT))
    part.write_bytes(CONTENT[:5_000_007])
    told = got(f"{bucket}/{KEY}", part)
    assert part.read_bytes() == CONTENT and told == [(len(CONTENT), len(CONTENT))]
    part.write_bytes(CONTENT + b"too much")
    got(f"{bucket}/{KEY}", part)
    assert part.read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_an_error_that_names_it_and_the_command_that_checks(bucket, tmp_path):
    command = "gcloud auth" if bucket.startswith("gs") else "aws sts"
    with pytest.raises(ProvenanceError) as caught:
        got(f"{bucket}/nosuch.csv", tmp_path / "a.part")
    assert f"{bucket}/nosuch.csv could not be obtained: " in str(caught.value) and command in str(caught.value)
    assert "\n" not in caught.value.message and len(caught.value.message) < 500
    with pytest.raises(ProvenanceError, match="a//b could not be obtained"):
        got(f"{bucket}/a//b", tmp_path / "a.part")
    assert not (tmp_path / "a.part").exists()
