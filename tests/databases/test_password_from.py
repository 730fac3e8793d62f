"""A PostgreSQL whose password EMS reads from the version of a secret."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.cli import app as cli
from ems.databases import State, connect
from ems.databases.postgresql import backend
from tests.databases.secret_stores import FIRST, LATEST, PASSWORD, Stores
from tests.databases.servers import PostgresqlServer
from tests.node.bench import JOB, ROWS, bench_of, half
from tests.processes import PATIENCE_S, eventually

pytestmark = pytest.mark.xdist_group("secret_versions")
HERE = Path()
ACCESS = "local all all trust\nhost all ems 127.0.0.1/32 trust\nhost all secured 127.0.0.1/32 scram-sha-256\n"
LAB = """
name: lab
config:
  ems:lab_id: {{value: 5f0c3b1e-0000-4000-8000-000000000000}}
  ems:database: {{value: "{url}"}}
"""


@pytest.fixture(scope="module")
def own() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer.make(access=ACCESS)
    try:
        server.execute("CREATE ROLE secured LOGIN")
        yield server
    finally:
        server.end()


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
    monkeypatch.setattr(backend, "CHANGING_S", 0.1)
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
    monkeypatch.setattr(backend, "CHANGING_S", 0.1)
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
        eventually(lambda: "waiting for it" in (run_dir / "agent.log").read_text())
        stores.start()
        assert agent.wait(PATIENCE_S) == 0
        assert (bench.row().state, bench.values()) == (State.SUCCEEDED, ROWS)
