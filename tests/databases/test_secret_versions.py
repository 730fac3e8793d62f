"""Versions of secrets in Google's and AWS's stores, which stand-ins of these tests answer for."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from botocore.session import Session

from ems.base.errors import DatabaseError, DatabaseUnavailable, UserError
from ems.databases import connect
from ems.databases.postgresql.secret_versions import password, taken_out
from tests.databases.secret_stores import ARN, GOOGLE, LATEST, PASSWORD, version_id
from tests.moto_server import running

pytestmark = pytest.mark.xdist_group("secret_versions")
HERE = Path()


def refused(name: str, words: str, hint: str) -> None:
    with pytest.raises(DatabaseError, match=rf"{re.escape(name)}(.|\n)*{words}(.|\n)*{hint}") as raised:
        password(name)
    assert not isinstance(raised.value, DatabaseUnavailable)
    assert PASSWORD not in str(raised.value)


# Names


@pytest.mark.parametrize(
    ("url", "plain", "name"),
    [
        ("postgresql://a@h/b", "postgresql://a@h/b", ""),
        ("postgresql:///?service=lab", "postgresql:///?service=lab", ""),
        (f"postgresql://h/b?password_from={GOOGLE}7", "postgresql://h/b", f"{GOOGLE}7"),
        (f"postgresql:///?x=1&password_from={GOOGLE}latest&y=2", "postgresql:///?x=1&y=2", f"{GOOGLE}latest"),
        (
            "postgresql://h/b?password_from=projects/a.org:p/locations/europe-west3/secrets/s/versions/live",
            "postgresql://h/b",
            "projects/a.org:p/locations/europe-west3/secrets/s/versions/live",
        ),
        (f"postgresql://h/b?password_from={ARN}", "postgresql://h/b", ARN),
        (f"postgresql://h/b?password_from={ARN.replace(':', '%3A')}", "postgresql://h/b", ARN),
        (
            "postgresql://h/b?password_from=arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:rds!db+=@x-1:password:"
            "AWSCURRENT:",
            "postgresql://h/b",
            "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:rds!db+=@x-1:password:AWSCURRENT:",
        ),
    ],
)
def test_the_name_is_taken_out_of_the_url(url, plain, name):
    assert taken_out(url) == (plain, name)


@pytest.mark.parametrize(
    "value",
    [
        PASSWORD.replace("&", ""),
        "",
        f"{GOOGLE}",
        "projects/lab/secrets/db",
        f"{ARN}:AWSCURRENT",
        ARN.replace("secretsmanager", "ssm"),
        f"{GOOGLE}1/../2",
        f"{GOOGLE}1&password_from={GOOGLE}2",
    ],
)
def test_what_is_no_name_is_refused_and_not_repeated_as_it_may_be_a_password(value):
    with pytest.raises(UserError, match=r"password_from(.|\n)*Allowed: projects/PROJECT/secrets/") as raised:
        connect(f"postgresql://host/lab?password_from={value}", HERE)
    assert not value or value not in str(raised.value)


def test_a_password_beside_it_is_refused_and_the_hint_names_both_ways():
    with pytest.raises(UserError, match=r"pgpass(.|\n)*password_from=projects/") as raised:
        connect(f"postgresql://me:s3cret@host/lab?password_from={GOOGLE}1", HERE)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [(GOOGLE, "google.auth", "bigquery"), (ARN, "botocore", "dynamodb")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    for module in ("secrets_google", "secrets_aws"):
        monkeypatch.delitem(sys.modules, f"ems.databases.postgresql.{module}")
    with pytest.raises(UserError, match=rf"package(.|\n)*pip install 'ems-experiments\[{extra}\]'"):
        password(f"{name}1")


# What a secret holds


def test_versions(stores, store):
    stores.versions = [b"one", b"two", b"three"]
    names = {
        "google": [f"{GOOGLE}latest", f"{GOOGLE}2", f"{GOOGLE}1"],
        "aws": [ARN, f"{ARN}::AWSPREVIOUS:", f"{ARN}:::{version_id(1)}"],
    }
    assert [password(name) for name in names[store]] == ["three", "two", "one"]
    refused({"google": f"{GOOGLE}4", "aws": f"{ARN}:::{version_id(4)}"}[store], "(not|can't) find|found", "versions? ")


@pytest.mark.parametrize(
    ("secret", "value"),
    [
        (PASSWORD, PASSWORD),
        (f"{PASSWORD}\n", PASSWORD),
        (" 12345 ", " 12345 "),
        ('"quoted"', '"quoted"'),
        (json.dumps({"username": "lab", "password": PASSWORD, "port": 5432}), PASSWORD),
    ],
)
def test_a_secret_is_the_password_or_an_object_that_has_it(stores, store, secret, value):
    stores.versions = [secret.encode()]
    assert password(LATEST[store]) == value


def test_the_key_of_an_object_as_ecs_writes_it(stores):
    stores.versions = [json.dumps({"of lab": PASSWORD}).encode()]
    assert password(f"{ARN}:of lab::") == PASSWORD


@pytest.mark.parametrize(
    "secret",
    [b"", b"\n", b"tr0ub4dor\xff", b"tr0ub4dor\0", b'{"secret": "tr0ub4dor"}', b'{"password": {"x": "tr0ub4dor"}}'],
)
def test_what_is_no_password_is_refused_and_not_repeated(stores, store, secret):
    stores.versions = [secret]
    with pytest.raises(DatabaseError, match=r"neither a password nor(.|\n)*'password'(.|\n)*KEY") as raised:
        password(LATEST[store])
    shown = "".join(traceback.format_exception(raised.value))
    assert LATEST[store] in shown and "tr0ub4dor" not in shown


def test_another_stand_in_for_aws_answers_alike(stores, monkeypatch):
    with running("-m", "moto.server", "-H", "127.0.0.1", "-p", "0") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        client = Session().create_client("secretsmanager", "eu-central-1")
        first = client.create_secret(Name="lab/db", SecretString="one")
        arn = first["ARN"]
        client.put_secret_value(SecretId=arn, SecretString="two")
        assert [password(arn), password(f"{arn}:::{first['VersionId']}")] == ["two", "one"]
        assert [password(f"{arn}::AWSCURRENT:"), password(f"{arn}::AWSPREVIOUS:")] == ["two", "one"]
        refused(f"{arn}:::{version_id(1)}", "ResourceNotFoundException", "list-secret-version-ids")
        refused(ARN, "ResourceNotFoundException", "list-secret-version-ids")
        client.delete_secret(SecretId=arn)
        refused(arn, "InvalidRequestException", "list-secret-version-ids")


# Errors


@pytest.mark.parametrize("fault", ["throttled", "broken", "proxy", "slow", "down"])
def test_a_store_that_is_busy_or_away_is_waited_for(stores, store, hasty, fault):
    stores.versions, stores.fault = [PASSWORD.encode()], fault
    if fault == "down":
        stores.stop()
    with pytest.raises(DatabaseUnavailable, match=rf"does not answer: {LATEST[store]} \((.|\n)*try again"):
        password(LATEST[store])
    stores.fault = ""
    if fault == "down":
        stores.start()
    assert password(LATEST[store]) == PASSWORD


@pytest.mark.parametrize(
    ("fault", "words", "hints"),
    [
        ("denied", "denied|not authorized", ("roles/secretmanager.secretAccessor", "secretsmanager:GetSecretValue")),
        ("off", "DISABLED|deletion", ("gcloud secrets versions list", "list-secret-version-ids")),
        ("unknown", "invalid", ("roles/secretmanager.secretAccessor", "aws sts get-caller-identity")),
    ],
)
def test_what_a_person_must_mend_says_how(stores, store, fault, words, hints):
    stores.versions, stores.fault = [PASSWORD.encode()], fault
    refused(LATEST[store], words, hints[store == "aws"])


def test_nobody_is_logged_in(stores, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    refused(LATEST["google"], "none.json was not found", "gcloud auth application-default login")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    refused(LATEST["aws"], r"profile \(lab\) could not be found", "aws configure")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    refused(LATEST["aws"], "Unable to locate credentials", "aws configure")


def test_googles_tokens_are_refused_or_away(stores):
    stores.versions = [PASSWORD.encode()]
    stores.login = 400
    refused(LATEST["google"], "Invalid JWT Signature", "gcloud auth application-default login")
    stores.login = 503
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        password(LATEST["google"])


def test_a_region_has_an_endpoint_of_its_own(stores, monkeypatch):
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER")
    for place, host in (("", "secretmanager"), ("/locations/europe-west3", "secretmanager.europe-west3.rep")):
        with pytest.raises(DatabaseUnavailable, match=rf"host='{host}.googleapis.com'"):
            password(f"projects/lab{place}/secrets/db/versions/1")


def test_a_machines_role_opens_the_store(stores, store, monkeypatch):
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name)
    for name in ("GCE_METADATA_HOST", "GCE_METADATA_IP"):
        monkeypatch.setenv(name, f"127.0.0.1:{stores.port}")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{stores.url}/role")
    monkeypatch.setenv("HOME", str(HERE / "nobody"))
    stores.versions = [PASSWORD.encode()]
    code = f"from ems.databases.postgresql.secret_versions import password; print(password({LATEST[store]!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{PASSWORD}\n", 0), done.stderr
