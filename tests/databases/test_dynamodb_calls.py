"""How EMS calls DynamoDB: patience, lost answers, refusals, credentials, the clock."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions

from ems.base.errors import DatabaseError, DatabaseUnavailable, UserError
from ems.databases import Outcome, State, connect
from ems.databases.dynamodb import errors as dynamodb_errors
from ems.databases.dynamodb.service import Clock, Service, session
from ems.databases.dynamodb.setup import READ
from tests.databases.access_contract import AccessContract, Check
from tests.databases.cases import Address, batch, claimed, fill_lab, ints, now, table
from tests.databases.dynamodb_server import ENDPOINT, gate

HERE = Path()


@pytest.fixture
def database(dynamodb_url):
    with closing(connect(dynamodb_url, HERE)) as made:
        made.create()
        fill_lab(made)
        yield made


def test_throttling_and_unprocessed_items_are_waited_out(
    database, dynamodb_server, dynamodb_url, tmp_path, monkeypatch
):
    claim = claimed(database)
    seen, throttled = [], []

    def grudging(gate, name, body):
        if len(throttled) < 4:
            throttled.append(name)
            return 400, {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slower"}
        if name != "BatchWriteItem":
            return gate.passed(name, body)
        ((of_table, requests),) = body["RequestItems"].items()
        taken = requests[: max(len(requests) // 2, 1)]
        seen.extend(request["PutRequest"]["Item"]["rowid"]["S"] for request in taken)
        gate.passed(name, {"RequestItems": {of_table: taken}})
        return 200, {"UnprocessedItems": {of_table: requests[len(taken) :]} if len(taken) < len(requests) else {}}

    with gate(dynamodb_server.url, grudging) as before:
        monkeypatch.setenv(ENDPOINT, before.url)
        with closing(connect(dynamodb_url, HERE)) as other:
            other.store(claim, batch(list(range(60)), ints("x", *range(60))))
    assert len(throttled) == 4
    assert len(seen) == len(set(seen)) == 61  # and the batch's entry
    assert table(database)["x"] == list(range(60))


def test_a_commit_whose_answer_was_lost_is_found_out(database, dynamodb_server, dynamodb_url, monkeypatch):
    claim = claimed(database)
    lost = []

    def losing(gate, name, body):
        answer = gate.passed(name, body)
        is_commit = name == "UpdateItem" and "last_batch" in body.get("UpdateExpression", "")
        if (is_commit or name == "TransactWriteItems") and name not in lost:
            lost.append(name)
            return None
        return answer

    with gate(dynamodb_server.url, losing) as before:
        monkeypatch.setenv(ENDPOINT, before.url)
        with closing(connect(dynamodb_url, HERE)) as other:
            other.store(claim, batch([0, 1], ints("x", 1, 2)))
            other.release(claim, Outcome(State.SUCCEEDED, 2, 0, cost_usd=2.5))
    assert lost == ["UpdateItem", "TransactWriteItems"]
    found = now(database)
    assert (found.rows_stored, found.state, found.cost_usd) == (2, State.SUCCEEDED, 2.5)
    assert table(database)["x"] == [1, 2]


class TestAccess(AccessContract):
    says_read_only = "refuses what this role may not do.*ems database check"
    says_wrong = "does not accept these AWS credentials.*aws configure"
    says_lost = "has no tables yet.*ems up lab"
    part = "results"

    def use_part(self, database, claim) -> None:
        database.store(claim, batch([0], ints("x", 1)))

    @pytest.fixture
    def address(self, dynamodb_url) -> Address:
        return dynamodb_url, HERE

    def behind_gate(self, address, intercept) -> Callable[[Check], None]:
        def do(check: Check) -> None:
            with pytest.MonkeyPatch.context() as patched, gate(os.environ[ENDPOINT], intercept) as before:
                patched.setenv(ENDPOINT, before.url)
                with closing(connect(*address)) as client:
                    check(client)

        return do

    @pytest.fixture
    def as_reader(self, address) -> Callable[[Check], None]:
        def reader(gate, name, body):
            if name in READ:
                return gate.passed(name, body)
            return 400, {"__type": "com.amazon#AccessDeniedException", "message": f"not authorized: {name}"}

        return self.behind_gate(address, reader)

    @pytest.fixture
    def as_stranger(self, address) -> Callable[[Check], None]:
        answer = {"__type": "com.amazon#UnrecognizedClientException", "message": "invalid"}
        return self.behind_gate(address, lambda *_: (400, answer))

    @pytest.fixture
    def raw(self) -> Any:
        return session().create_client("dynamodb", "eu-central-1")

    @pytest.fixture
    def drop(self, dynamodb_url, raw) -> Callable[[str], None]:
        def drop(part: str) -> None:
            name = f"{dynamodb_url.rpartition('/')[2]}-{part}"
            raw.update_table(TableName=name, DeletionProtectionEnabled=False)
            raw.delete_table(TableName=name)

        return drop

    @pytest.fixture
    def set_version(self, dynamodb_url, raw) -> Callable[[int], None]:
        name = f"{dynamodb_url.rpartition('/')[2]}-registry"
        item = {"pk": {"S": "version"}, "sk": {"S": "schema"}}
        return lambda version: raw.put_item(TableName=name, Item=item | {"version": {"N": str(version)}})


REFUSALS = {
    "AccessDeniedException": ("may not do", "ems database check"),
    "UnrecognizedClientException": ("does not accept these AWS credentials", "aws configure"),
    "ExpiredTokenException": ("does not accept these AWS credentials", "aws sso login"),
    "ResourceNotFoundException": ("has no tables yet", "ems up lab"),
    "ValidationException": ("refused a call", "ems doctor"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_refusals_say_what_to_do(code, monkeypatch):
    words, hint = REFUSALS[code]
    with gate("", lambda *_: (400, {"__type": f"com.amazon#{code}", "message": "no"})) as before:
        monkeypatch.setenv(ENDPOINT, before.url)
        with closing(connect("dynamodb://eu-central-1/lab", HERE)) as database:
            with pytest.raises(DatabaseError, match=rf"{words}(.|\n)*{hint}") as raised:
                database.experiments()
            assert not isinstance(raised.value, DatabaseUnavailable)


def test_what_may_pass_is_unavailable(monkeypatch):
    for code, words in (("ThrottlingException", "could not keep up"), ("InternalServerError", "does not answer")):
        with gate("", lambda *_, code=code: (500, {"__type": f"com.amazon#{code}", "message": "no"})) as before:
            monkeypatch.setenv(ENDPOINT, before.url)
            service = Service("eu-central-1", "lab", patience_s=0.01)
            with pytest.raises(DatabaseUnavailable, match=rf"{words}(.|\n)*Nothing was changed: try again"):
                service.get("version", "schema")
            service.close()


def test_nobody_at_the_endpoint(monkeypatch):
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    with (
        closing(connect("dynamodb://eu-central-1/lab", HERE)) as database,
        pytest.raises(DatabaseUnavailable, match=r"does not answer .*127.0.0.1:9(.|\n)*try again"),
    ):
        database.experiments()


def test_without_credentials(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    for profile, words in (("", "Unable to locate credentials"), ("other", "profile .other. could not be found")):
        if profile:
            monkeypatch.setenv("AWS_PROFILE", profile)
        with (
            closing(connect("dynamodb://eu-central-1/lab", HERE)) as database,
            pytest.raises(DatabaseError, match=rf"needs AWS credentials.*{words}(.|\n)*aws configure"),
        ):
            database.experiments()


def test_an_unknown_region_is_named(monkeypatch):
    monkeypatch.delenv(ENDPOINT)
    error = exceptions.EndpointConnectionError(endpoint_url="https://dynamodb.eu-centrall-1.amazonaws.com")
    told = dynamodb_errors.explained(error, "dynamodb://eu-centrall-1/lab", "eu-centrall-1")
    assert "no region 'eu-centrall-1'" in str(told) and "eu-central-1" in told.hint
    away = dynamodb_errors.explained(error, "dynamodb://eu-central-1/lab", "eu-central-1")
    assert isinstance(away, DatabaseUnavailable)


@pytest.mark.parametrize(
    "url",
    ["dynamodb://", "dynamodb:///lab", "dynamodb://eu-central-1", "dynamodb://eu-central-1/a/b", "dynamodb://x/ä"],
)
def test_urls_that_name_no_tables(url, tmp_path):
    with pytest.raises(UserError, match=r"(?s)no DynamoDB URL.*dynamodb://REGION/PREFIX"):
        connect(url, tmp_path)


def test_keys_in_a_url_are_refused_and_not_repeated(tmp_path):
    with pytest.raises(UserError, match=r"~/\.aws") as raised:
        connect("dynamodb://AKIA:s3cret@eu-central-1/lab", tmp_path)
    assert "s3cret" not in str(raised.value)


def test_a_missing_package_is_named():
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "from pathlib import Path; from ems.databases import connect\n"
        "connect('dynamodb://eu-central-1/lab', Path())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UserError" in done.stderr and "pip install 'ems-experiments[dynamodb]'" in done.stderr


# Clock


def test_the_clock_is_this_machines_unless_answers_prove_it_wrong():
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    clock = Clock()
    assert clock.ahead_s == 0
    clock.hear(format_datetime(noon), noon.timestamp() + 0.2, noon.timestamp() + 0.3)
    assert clock.ahead_s == 0
    later = noon + timedelta(minutes=5)
    clock.hear(format_datetime(later), noon.timestamp() + 1.9, noon.timestamp() + 2.0)
    assert clock.ahead_s == pytest.approx(298)
    clock.hear(format_datetime(later + timedelta(seconds=2)), noon.timestamp() + 2.9, noon.timestamp() + 3.0)
    assert clock.ahead_s == pytest.approx(299)
    clock.hear(format_datetime(noon - timedelta(hours=1)), noon.timestamp() + 3.9, noon.timestamp() + 4.0)
    assert clock.ahead_s == pytest.approx(-3602.9)
