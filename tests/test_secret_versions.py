"""A database's password from the version of a secret: stand-ins for the stores, and a PostgreSQL that asks for it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
import trustme
from botocore.config import Config
from botocore.session import Session
from typer.testing import CliRunner

from ems import cli
from ems.databases import State, connect, postgresql, secrets_aws, secrets_google
from ems.databases.secret_versions import password, taken_out
from ems.errors import DatabaseError, DatabaseUnavailable, UserError
from tests import secret_stores
from tests.database_cases import until
from tests.secret_stores import ARN, GOOGLE, Stores, version_id
from tests.servers import PostgresqlServer
from tests.test_agent import JOB, PATIENCE_S, ROWS, bench_of, half
from tests.test_buckets import running

pytestmark = pytest.mark.xdist_group("secret_versions")
HERE = Path()
PASSWORD = "tr0ub4dor&3 pässword"
ACCESS = "local all all trust\nhost all ems 127.0.0.1/32 trust\nhost all secured 127.0.0.1/32 scram-sha-256\n"
LATEST = {"google": f"{GOOGLE}latest", "aws": ARN}
LAB = """
name: lab
config:
  ems:lab_id: {{value: 5f0c3b1e-0000-4000-8000-000000000000}}
  ems:database: {{value: "{url}"}}
"""
FIRST = {"google": f"{GOOGLE}1", "aws": f"{ARN}:::{version_id(1)}"}


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer.make(access=ACCESS)
    try:
        server.execute("CREATE ROLE secured LOGIN")
        yield server
    finally:
        server.end()


@pytest.fixture
def stores(tmp_path_factory, monkeypatch) -> Iterator[Stores]:
    """Both stores, found and believed as on a machine of the lab: a service account's key, a profile of AWS."""
    folder = tmp_path_factory.mktemp("login")
    with secret_stores.serving() as stores:
        key = trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes().decode()
        account = {"type": "service_account", "private_key": key, "client_email": "lab@example.org", "client_id": "1"}
        about = {"project_id": "lab", "private_key_id": "1", "token_uri": f"{stores.url}/token"}
        (folder / "account.json").write_text(json.dumps({**account, **about}))
        (folder / "credentials").write_text("[lab]\naws_access_key_id = lab\naws_secret_access_key = word\n")
        for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "CLOUDSDK_"))]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(folder / "account.json"))
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER", f"{stores.url}/")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
        monkeypatch.setenv("AWS_CONFIG_FILE", str(folder / "none"))
        monkeypatch.setenv("AWS_PROFILE", "lab")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", stores.url)
        monkeypatch.setenv("HTTPS_PROXY", stores.url)  # refuses: nothing leaves this machine
        yield stores


@pytest.fixture(params=["google", "aws"])
def store(request) -> str:
    return str(request.param)


@pytest.fixture
def address(own, stores) -> Iterator[str]:
    """A URL that lacks the secret's name alone; the password is the first version of the secret."""
    with own.database() as name:
        own.execute(f"ALTER DATABASE {name} OWNER TO secured")
        change(own, stores, PASSWORD)
        yield own.url(name, user="secured", query="?sslmode=prefer&password_from=")


def change(own: PostgresqlServer, stores: Stores, to: str) -> None:
    own.execute(f"ALTER ROLE secured PASSWORD '{to}'")
    stores.versions.append(to.encode())


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
        monkeypatch.delitem(sys.modules, f"ems.databases.{module}")
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


@pytest.fixture
def hasty(monkeypatch) -> None:
    monkeypatch.setattr(secrets_google, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(secrets_aws, "CONFIG", Config(read_timeout=0.3, retries={"total_max_attempts": 2}))


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
    code = f"from ems.databases.secret_versions import password; print(password({LATEST[store]!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{PASSWORD}\n", 0), done.stderr


# A server that asks for it


def test_it_opens_the_database_and_check_shows_whence_it_came(own, stores, store, address, tmp_path, monkeypatch):
    url = address + FIRST[store]
    with closing(connect(url, HERE)) as database:
        database.create()
        assert database.check().role == "secured"
        assert stores.reads == 1
    (tmp_path / "Pulumi.yaml").write_text(LAB.format(url=url))
    monkeypatch.chdir(tmp_path)
    for words in (["check"], ["check", "--json"]):
        shown = CliRunner().invoke(cli.app, ["database", *words])
        assert shown.exit_code == 0 and FIRST[store] in shown.output
        assert PASSWORD not in shown.output


def test_a_wrong_password_in_the_secret_and_none(own, stores, store, address, monkeypatch):
    monkeypatch.setattr(postgresql, "CHANGING_S", 0.1)
    stores.versions = [b"an0ther one"]
    with closing(connect(address + LATEST[store], HERE)) as database:
        with pytest.raises(DatabaseError, match=r"authentication failed(.|\n)*secret of password_from") as raised:
            database.experiments()
        assert not isinstance(raised.value, DatabaseUnavailable)
        assert "an0ther one" not in "".join(traceback.format_exception(raised.value)) + repr(database.__dict__)
    with (
        closing(connect(address.removesuffix("&password_from="), HERE)) as database,
        pytest.raises(DatabaseError, match=r"no password supplied(.|\n)*password_from="),
    ):
        database.experiments()


def test_a_password_that_changes_while_a_client_lives(own, stores, store, address, monkeypatch):
    monkeypatch.setattr(postgresql, "CHANGING_S", 0.1)
    with (
        closing(connect(address + LATEST[store], HERE)) as database,
        closing(connect(address + FIRST[store], HERE)) as pinned,
    ):
        database.create()
        assert pinned.experiments() == []
        change(own, stores, "a newer one")
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secured'")
        assert database.experiments() == []
        with pytest.raises(DatabaseError, match="authentication failed"):
            pinned.experiments()


def test_a_password_that_the_server_knows_before_the_store(own, stores, store, address):
    with closing(connect(address + LATEST[store], HERE)) as database:
        database.create()
        own.execute("ALTER ROLE secured PASSWORD 'a newer one'")
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secured'")
        threading.Timer(1.0, lambda: stores.versions.append(b"a newer one")).start()
        assert database.experiments() == []


def test_a_client_whose_store_is_away_goes_on_by_what_is_open_and_waits_for_more(own, stores, store, address, hasty):
    with closing(connect(address + LATEST[store], HERE)) as database:
        database.create()
        stores.stop()
        assert database.experiments() == []
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secured'")
        with pytest.raises(DatabaseUnavailable, match=r"store that has the database's password(.|\n)*try again"):
            database.experiments()
        stores.start()
        assert database.experiments() == []


# Agents

TELLING = (
    JOB
    + """
(run_dir / "environment").write_text(repr(dict(os.environ)))
"""
)


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def processes() -> str:
    """What anybody sees in the list of processes, and its owner of their variables."""
    shown = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            shown.append(f"{process.cmdline()}{process.environ()}")
    return "".join(shown)


def test_an_agent_reads_it_and_leaves_it_nowhere(own, stores, store, address, tmp_path):
    with bench_of(address + LATEST[store], tmp_path) as bench:
        run_dir = bench.new(code=TELLING)
        agent = bench.start(run_dir)
        half(run_dir, agent)
        seen = processes()
        assert str(run_dir) in seen and PASSWORD not in seen
        change(own, stores, f"{PASSWORD} 2")
        own.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'secured'")
        (run_dir / "go").touch()
        assert agent.wait(PATIENCE_S) == 0
        assert (bench.row().state, bench.values()) == (State.SUCCEEDED, ROWS)
        for language in ("python", "r", "sql"):
            code = bench.database.snippet(language, bench.row(), tmp_path)
            assert "sslmode" in code and "password" not in code  # libpq knows no password_from
    kept = everything_in(tmp_path)
    assert LATEST[store].encode() in kept  # in agent.json
    assert PASSWORD.encode() not in kept
    told = (run_dir / "environment").read_text()
    assert "EMS_RESULTS_DIR" in told
    assert not [word for word in ("AWS_", "GOOGLE_", "CLOUDSDK_", "projects/lab", "arn:aws") if word in told]
    assert PASSWORD not in (own.folder / "server.log").read_text()


def test_an_agent_waits_for_a_store_that_is_away(own, stores, store, address, tmp_path):
    with bench_of(address + LATEST[store], tmp_path) as bench:
        run_dir = bench.new()
        (run_dir / "go").touch()
        stores.stop()
        agent = bench.start(run_dir)
        until(lambda: "waiting for it" in (run_dir / "agent.log").read_text(), PATIENCE_S)
        stores.start()
        assert agent.wait(PATIENCE_S) == 0
        assert (bench.row().state, bench.values()) == (State.SUCCEEDED, ROWS)
