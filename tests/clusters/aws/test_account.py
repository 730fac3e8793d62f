"""What EMS asks of an account, and what it makes of answers that are none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ems.base.errors import EmsError, Unreachable
from ems.clusters.aws.account import Account
from tests.clusters.aws.cloud import REGION, Cloud, running
from tests.clusters.aws.made import BUCKET
from tests.clusters.aws.test_cloud import GROUP, group
from tests.processes import eventually

CALLS = {
    "has": lambda account: account.has("key"),
    "get": lambda account: account.get("key"),
    "put": lambda account: account.put("key", b""),
    "group": lambda account: account.group(GROUP),
    "resize": lambda account: account.resize(GROUP, 1),
}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with running() as found:
        for name, text in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "word"}.items():
            monkeypatch.setenv(name, text)
        monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
        found.client("s3").create_bucket(Bucket=BUCKET)
        yield found


@pytest.fixture
def account(cloud: Cloud) -> Account:
    return Account(REGION, BUCKET)


@pytest.mark.parametrize("call", CALLS)
def test_an_account_that_does_not_answer_is_waited_for(call, monkeypatch):
    for name, text in {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "word"}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(Unreachable):
        CALLS[call](Account(REGION, BUCKET))


@pytest.mark.parametrize("call", CALLS)
def test_without_credentials_it_says_how_to_get_some(call, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EmsError, match="no credentials were found") as caught:
        CALLS[call](Account(REGION, BUCKET))
    assert "aws configure" in caught.value.hint


def test_objects_that_are_not_there_are_none(account):
    assert not account.has("key") and account.get("key") is None
    account.remove("key")
    account.put("key", b"12")
    assert account.has("key", 2) and not account.has("key", 3) and account.get("key") == b"12"


def test_a_group_that_is_gone_is_closed_and_cannot_be_opened(account, cloud):
    account.resize(GROUP, 0)
    with pytest.raises(EmsError, match="not found"):
        account.resize(GROUP, 1)
    assert account.group(GROUP) is None


def test_a_group_ends_when_what_closes_it_is_yet_to_come(account, cloud):
    group(cloud)
    assert account.ends_at(GROUP) is None
    at = datetime.now(UTC) + timedelta(hours=1)
    account.close_at(GROUP, "deadline", at)
    assert abs(account.ends_at(GROUP) - at) < timedelta(seconds=1)
    cloud.advance(3700)
    eventually(lambda: account.ends_at(GROUP) is None)


def test_why_there_is_no_machine_is_said_in_the_services_words(account, cloud):
    group(cloud)
    cloud.sold_out.add("t3.micro")
    account.resize(GROUP, 1)
    eventually(lambda: "InsufficientInstanceCapacity" in account.failure(GROUP))
    cloud.sold_out.clear()
    eventually(lambda: account.failure(GROUP) == "")
