"""A store in Google Cloud Storage: a stand-in of its interface on loopback, with the real client."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ems.base.errors import StoreError, StoreUnavailable
from ems.stores import Store, connect
from ems.stores.gs import store as gs_store
from tests.stores.contract import LARGE, StoreContract, put, written
from tests.stores.gs_server import Bucket, serving


@pytest.fixture
def bucket(monkeypatch) -> Iterator[Bucket]:
    with serving() as (url, bucket):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        monkeypatch.setattr(gs_store, "RETRY", gs_store.RETRY.with_timeout(3.0).with_delay(0.05, 0.2, 2.0))
        yield bucket


@pytest.fixture
def store(bucket, tmp_path) -> Store:
    found = connect("gs://lab-data/a/lab/", tmp_path)
    found.make_ready()
    return found


class TestGs(StoreContract):
    @pytest.fixture(autouse=True)
    def served(self, bucket) -> None:
        self.bucket = bucket

    @pytest.fixture
    def elsewhere(self, store, tmp_path) -> Store:
        return connect("gs://lab-data/b", tmp_path)

    def objects(self, store: Store) -> list[str]:
        names = {name.removeprefix("a/lab/") for name in self.bucket.objects}
        return sorted(names - {"ems-store.json"})


@pytest.mark.parametrize("status", [429, 503, 0])
@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
def test_an_upload_that_is_interrupted_goes_on(store, bucket, tmp_path, status, method):
    content = os.urandom(LARGE)
    bucket.faults += [(method, status)] * 2
    kept = put(store, written(tmp_path, content))
    assert bucket.objects[f"a/lab/{kept.digest[:2]}/{kept.digest}"] == content and not bucket.faults
    bucket.faults += [("GET", status)] * 2
    assert b"".join(store.read(kept.digest)) == content


def test_a_service_that_stays_away_is_told(store, bucket, tmp_path):
    bucket.faults += [("POST", 503)] * 1_000
    with pytest.raises(StoreUnavailable, match="gs://lab-data/a/lab/ does not answer"):
        put(store, written(tmp_path, b"x"))
    bucket.faults.clear()
    put(store, tmp_path / "file")


def test_what_is_wrong_is_told_before_anything_is_made(bucket, tmp_path, monkeypatch):
    with pytest.raises(
        StoreError, match=r"the bucket 'nosuch' is not there(.|\n)*gcloud storage buckets create gs://nosuch"
    ):
        connect("gs://nosuch/a", tmp_path).make_ready()
    bucket.denied = True
    with pytest.raises(StoreError, match=r"refuses: .*does not have storage(.|\n)*gcloud auth") as caught:
        connect("gs://lab-data/a", tmp_path).make_ready()
    assert not isinstance(caught.value, StoreUnavailable)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(StoreError, match="no credentials were found"):
        connect("gs://lab-data/a", tmp_path).make_ready()
    assert not bucket.objects
