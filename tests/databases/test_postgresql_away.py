"""A PostgreSQL server that goes away and comes back, asks for passwords and TLS: one of these tests' own."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trustme

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases import Outcome, State, connect
from tests.databases.access_contract import Check, SqlAccessContract
from tests.databases.away_contract import NOWHERE, NetworkContract, Own
from tests.databases.cases import Address, batch, claimed, fill_lab, floats, ints, now, table
from tests.databases.servers import PostgresqlServer

pytestmark = pytest.mark.xdist_group("postgresql_away")
HERE = Path()
ACCESS = """
local all all trust
host all ems 127.0.0.1/32 trust
hostssl all secured localhost scram-sha-256
hostssl all secured 127.0.0.1/32 scram-sha-256
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


@pytest.fixture(scope="module")
def own(authority) -> Iterator[PostgresqlServer]:
    server = PostgresqlServer.make(access=ACCESS)
    try:
        secure(server, authority.issue_cert("localhost"))
        server.execute("CREATE ROLE secured LOGIN PASSWORD 'its password'")
        yield server
    finally:
        server.end()


def secure(server: PostgresqlServer, certificate: trustme.LeafCert) -> None:
    data = server.folder / "data"
    for name, blob in (("server.crt", certificate.cert_chain_pems[0]), ("server.key", certificate.private_key_pem)):
        blob.write_to_path(str(data / name))
        (data / name).chmod(0o600)
        if os.geteuid() == 0:
            os.chown(data / name, data.stat().st_uid, data.stat().st_gid)
    server.execute("ALTER SYSTEM SET ssl = on")
    server.execute("SELECT pg_reload_conf()")


@pytest.fixture
def url(own) -> Iterator[str]:
    with own.database() as name:
        yield own.url(name)


# Away


class TestAway(NetworkContract):
    @pytest.fixture
    def own(self, own, url) -> Own:
        return SimpleNamespace(url=url, kill=own.stop, start=own.start)

    @pytest.fixture
    def nowhere(self) -> Callable[[], str]:
        return lambda: f"postgresql://ems@{NOWHERE}/lab"


def test_a_reading_is_told_that_the_server_went(own, url):
    with closing(connect(url, HERE)) as database:
        database.create()
        fill_lab(database)
        database.store(claimed(database), batch([0], ints("x", 1)))
        reading = database.points("5f0c")
        next(reading)
        own.stop()
        own.start()
        with pytest.raises(DatabaseUnavailable, match=r"does not answer(.|\n)*try again"):
            next(reading)


@contextmanager
def cut_at_commit(port: int) -> Iterator[int]:
    """A port that leads to `port` for one connection, which breaks before the answer to its first COMMIT."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def lead() -> None:
            client, _ = listening.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                while not (data := passed(client, server)).endswith(b"COMMIT\0"):
                    server.sendall(data)
                server.sendall(data)
                assert server.recv(65536)

        thread = threading.Thread(target=lead)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def passed(client: socket.socket, server: socket.socket) -> bytes:
    """What the client says next; it hears what the server says until then."""
    while server in select.select([client, server], [], [])[0]:
        client.sendall(server.recv(65536))
    return client.recv(65536)


def test_a_commit_whose_answer_was_lost_is_found_out(own, url):
    with closing(connect(url, HERE)) as database:
        database.create()
        fill_lab(database)
        claim = claimed(database)
        rows = batch([0, 1], floats("x", 0.5, 1.5), replaces=(0, 1))
        outcome = Outcome(State.SUCCEEDED, 2, 0, cost_usd=2.5)
        for call in (lambda d: d.store(claim, rows), lambda d: d.release(claim, outcome)):
            before = now(database)
            with cut_at_commit(own.port) as port, pytest.raises(DatabaseUnavailable):
                call(connect(f"{url.replace(str(own.port), str(port))}?sslmode=disable", HERE))
            assert now(database) != before  # it was committed, which the caller was not told
            call(database)
        found = now(database)
        assert (found.rows_stored, found.state, found.cost_usd) == (2, State.SUCCEEDED, 2.5)
        assert table(database)["x"] == [0.5, 1.5]


# Getting in


@pytest.fixture
def secured(own, url, ca_file) -> str:
    """A URL by which `secured` gets in, with a password, and TLS that is verified."""
    database = url.rpartition("/")[2]
    own.execute(f"ALTER DATABASE {database} OWNER TO secured")
    query = f"?sslmode=verify-full&sslrootcert={ca_file}"
    return own.url(database, user="secured", host="localhost", query=query)


@pytest.fixture
def passwords(own, tmp_path, monkeypatch) -> Path:
    file = tmp_path / "pgpass"
    file.write_text(f"localhost:{own.port}:*:secured:its password\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    return file


def refused(url: str, words: str, hint: str) -> None:
    with closing(connect(url, HERE)) as database:
        with pytest.raises(DatabaseError, match=rf"{words}(.|\n)*{hint}") as raised:
            database.experiments()
        assert not isinstance(raised.value, DatabaseUnavailable)


def test_a_password_from_pgpass_and_verified_tls(secured, passwords):
    with closing(connect(secured, HERE)) as database:
        database.create()
        assert database.experiments() == []
        with database._backend.reading() as connection:
            assert connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").scalar()


def test_a_service_file(secured, passwords, own, ca_file, tmp_path, monkeypatch):
    file = tmp_path / "services"
    name = secured.partition("?")[0].rpartition("/")[2]
    lines = [
        f"host=localhost\nport={own.port}\ndbname={name}",
        f"user=secured\nsslmode=verify-full\nsslrootcert={ca_file}",
    ]
    file.write_text("\n".join(["[lab]", *lines, ""]))
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with closing(connect("postgresql:///?service=lab", HERE)) as database:
        assert database.check().role == "secured"
    refused("postgresql:///?service=other", 'definition of service "other" not found', "pg_service.conf")


def test_a_wrong_password(secured, passwords):
    passwords.write_text("*:*:*:*:another\n")
    refused(secured, "password authentication failed", "Correct the password in ~/.pgpass")
    passwords.unlink()
    refused(secured, "no password supplied", "HOST:PORT:DATABASE:USER:PASSWORD")


def test_without_tls_where_the_server_wants_it(secured, passwords):
    refused(secured.partition("?")[0] + "?sslmode=disable", "no pg_hba.conf entry", "sslmode")


def test_a_server_that_another_authority_vouches_for(secured, passwords, ca_file, tmp_path):
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    refused(secured.replace(str(ca_file), str(other)), "certificate verify failed", "sslrootcert")
    refused(secured.replace("localhost", "127.0.0.1"), "certificate", "host's name")
    refused(secured.replace(str(ca_file), str(tmp_path / "none.pem")), "does not exist", "sslrootcert")


def test_a_database_or_user_that_is_not_there(own, url):
    refused(own.url("nothing"), 'database "nothing" does not exist', "createdb")
    local = f"postgresql://nobody@/postgres?host={own.folder}&port={own.port}"
    refused(local, 'role "nobody" does not exist', "createuser")


class TestAccess(SqlAccessContract):
    takes_nul = False
    says_read_only = "refuses what this role may not do.*ems database check"
    says_wrong = "password authentication failed.*Correct the password in ~/.pgpass"

    @pytest.fixture
    def address(self, url) -> Address:
        return url, HERE

    @pytest.fixture
    def as_reader(self, own, url, database) -> Callable[[Check], None]:
        def do(check: Check) -> None:
            name = url.rpartition("/")[2]
            database.setup()
            own.execute(f"CREATE ROLE {name}_somebody LOGIN IN ROLE {name}_reader")
            local = f"postgresql://{name}_somebody@/{name}?host={own.folder}&port={own.port}"
            with closing(connect(local, HERE)) as client:
                check(client)

        return do

    @pytest.fixture
    def as_stranger(self, own, url, tmp_path) -> Callable[[Check], None]:
        (tmp_path / "pgpass").write_text("*:*:*:secured:another password\n")
        (tmp_path / "pgpass").chmod(0o600)
        query = f"?sslmode=require&passfile={tmp_path / 'pgpass'}"

        def do(check: Check) -> None:
            with closing(connect(own.url(url.rpartition("/")[2], user="secured", query=query), HERE)) as database:
                check(database)

        return do

    @pytest.fixture
    def execute(self, own, url) -> Callable[[str], None]:
        return lambda statement: own.execute(statement, url.rpartition("/")[2])
