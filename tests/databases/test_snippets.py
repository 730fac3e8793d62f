"""The code that `ems read` prints, run as it stands by the programs it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from ems import lab
from ems.base.errors import UserError
from ems.cli import app as cli
from ems.databases.snippets import through_csv
from ems.lab import Lab
from ems.spool.batch import Column
from tests.conftest import commit, ran
from tests.databases.cases import batch, floats, ints, texts
from tests.databases.servers import program

BIG = 2**53 + 1  # no double
ROWS = batch(
    [0, 0, 1], ints("big", BIG, None, 7), ints("darts", 1, 2, 3), floats("estimate", 0.5, None, 2.25), rows=[0, 1, 0]
)


@pytest.fixture
def stored(here: Lab) -> Lab:
    ran(here, ROWS)
    return here


def snippet(language: str) -> str:
    result = CliRunner().invoke(cli.app, ["read", "pi", "--snippet", language])
    assert result.exit_code == 0, result.output
    return result.stdout


def run(folder: Path, *command: str, code: str = "") -> str:
    """What the program prints; it finds `ems`, and works elsewhere than in the lab."""
    variables = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, input=code, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PYTHON_CHECK = f"""
assert list(frame.columns)[-5:] == ["point", "row", "big", "darts", "estimate"], frame.columns
assert frame.big.isna().tolist() == [False, True, False] and frame.big[[0, 2]].tolist() == [{BIG}, 7], frame.big
assert frame[["point", "row", "darts"]].values.tolist() == [[0, 0, 1], [0, 1, 2], [1, 0, 3]]
assert frame.estimate.isna().tolist() == [False, True, False] and frame.estimate[2] == 2.25
"""
R_CHECK = """
stopifnot(identical(as.numeric(rows$darts), c(1, 2, 3)), identical(rows$estimate, c(0.5, NA, 2.25)))
stopifnot(identical(as.numeric(rows$point), c(0, 0, 1)), identical(as.numeric(rows$row), c(0, 1, 0)))
"""
MATLAB_CHECK = """
assert(isequaln([rows.point rows.row rows.darts rows.estimate], [0 0 1 0.5; 0 1 2 NaN; 1 0 3 2.25]));
"""
ODD = [
    "NA",
    "01234",
    "1",
    "TRUE",
    "\r",
    "a\rb",
    "\r\n",
    "\n",
    '""%',
    '"',
    ",",
    "a\n\nb",
    "\x01A",
    "\x01B\r",
    "\\",
    "é🙂",
]
TEXTS = ["x", None, "", *ODD]


def test_python(stored: Lab, tmp_path: Path) -> None:
    code = snippet("python")
    assert "sqlite3" in code
    run(tmp_path, sys.executable, "-", code=code + PYTHON_CHECK)


def with_polars(code: str) -> str:
    """As somebody does who takes the other line."""
    other = "    # or: frame = polars."
    assert other in code
    return "import polars\n" + code.replace(other, "    frame = polars.")


def test_polars_takes_the_same_query(stored: Lab, tmp_path: Path) -> None:
    code = with_polars(snippet("python")) + f"\nassert frame['big'].to_list() == [{BIG}, None, 7]\n"
    run(tmp_path, sys.executable, "-", code=code)


def test_r(stored: Lab, tmp_path: Path) -> None:
    code = snippet("r")
    assert "RSQLite" in code
    run(tmp_path, "Rscript", "-", code=code + R_CHECK)


def test_matlab_by_octave(stored: Lab, tmp_path: Path) -> None:
    run(tmp_path, "octave-cli", "--quiet", "--no-init-file", code=snippet("matlab") + MATLAB_CHECK)


def test_sql(stored: Lab, tmp_path: Path) -> None:
    code = snippet("sql")
    opened = str(stored.root / ".ems/ems.db")
    assert code.startswith(f'-- sqlite3 -readonly -box "{opened}"\n')
    assert run(tmp_path, "sqlite3", "-readonly", "-csv", opened, code=code).split()[-1].endswith(",1,0,7,3,2.25")


def moved(here: Lab, url: str) -> Lab:
    """The same lab with another database."""
    file = here.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace(here.database_url, url))
    commit(here.root)
    there = lab.find()
    ran(there, ROWS)
    return there


@pytest.fixture
def in_postgresql(here: Lab, postgresql_url: str) -> Lab:
    return moved(here, postgresql_url)


@pytest.mark.parametrize(
    ("language", "client", "command", "check"),
    [
        ("python", "psycopg", [sys.executable, "-"], PYTHON_CHECK),
        ("r", "RPostgreSQL", ["Rscript", "-"], R_CHECK),
        ("matlab", "ems results", ["octave-cli", "--quiet", "--no-init-file"], MATLAB_CHECK),
    ],
)
def test_the_same_from_postgresql(
    in_postgresql: Lab, tmp_path: Path, language: str, client: str, command: list[str], check: str
) -> None:
    code = snippet(language)
    assert client in code
    run(tmp_path, *command, code=code + check)


def test_polars_and_psql_on_postgresql(in_postgresql: Lab, tmp_path: Path) -> None:
    code = with_polars(snippet("python")) + "\nassert frame['darts'].sum() == 6\n"
    run(tmp_path, sys.executable, "-", code=code)
    code = snippet("sql")
    assert code.startswith(f'-- psql "{in_postgresql.database_url}"\n')
    said = run(tmp_path, program("psql"), "--csv", in_postgresql.database_url, code=code)
    assert said.splitlines()[-1].endswith(",1,0,7,3,2.25")


@pytest.mark.parametrize(
    ("language", "command", "check"),
    [
        ("python", [sys.executable, "-"], PYTHON_CHECK),
        ("r", ["Rscript", "-"], R_CHECK),
        ("matlab", ["octave-cli", "--quiet", "--no-init-file"], MATLAB_CHECK),
    ],
)
def test_the_same_from_dynamodb(
    here: Lab, dynamodb_url: str, tmp_path: Path, language: str, command: list[str], check: str
) -> None:
    moved(here, dynamodb_url)
    run(tmp_path, *command, code=snippet(language) + check)


class Tokens(BaseHTTPRequestHandler):
    """Google's, for whoever asks."""

    def do_POST(self) -> None:
        content = json.dumps({"access_token": "word", "token_type": "Bearer", "expires_in": 3600}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def known_to_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """By application-default credentials, which the code's client wants also where an emulator does not."""
    key = trustme.CA(key_type=trustme.KeyType.RSA).private_key_pem.bytes().decode()
    account = {"type": "service_account", "private_key": key, "client_email": "lab@example.org", "client_id": "1"}
    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        about = {"project_id": "other", "private_key_id": "1", "token_uri": f"http://127.0.0.1:{server.server_port}/"}
        (tmp_path / "account.json").write_text(json.dumps({**account, **about}))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
        yield
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("known_to_google")
def test_python_on_bigquery(here: Lab, bigquery_url: str, tmp_path: Path) -> None:
    moved(here, bigquery_url)
    code = snippet("python")
    assert "bigquery.Client(" in code
    run(tmp_path, sys.executable, "-", code=code + PYTHON_CHECK)
    assert code.split('"""')[1].strip() in snippet("sql").replace(";", "")


@pytest.mark.parametrize(("language", "check"), [("python", PYTHON_CHECK), ("r", R_CHECK)])
def test_without_a_client_of_its_own_a_database_is_read_through_ems(
    stored: Lab, tmp_path: Path, language: str, check: str
) -> None:
    interpreter = {"python": sys.executable, "r": "Rscript"}[language]
    run(tmp_path, interpreter, "-", code=through_csv(language, "pi", stored.root) + check)  # type: ignore[arg-type]


def test_a_service_without_sql_says_so(stored: Lab) -> None:
    with pytest.raises(UserError, match=r"does not speak SQL\.(.|\n)*python, r or matlab"):
        through_csv("sql", "pi", stored.root)


def test_another_language_is_refused_with_those_there_are(stored: Lab) -> None:
    result = CliRunner().invoke(cli.app, ["read", "pi", "--snippet", "cobol"])
    assert result.exit_code == 2
    assert all(name in result.output for name in ("python", "r", "matlab", "sql"))


@pytest.fixture
def odd(here: Lab) -> Lab:
    """Any text, and beside it values of all other types, with nulls."""
    count = len(TEXTS)
    flags = Column("my label", "bool", [None, True, *[False] * (count - 2)])
    numbers = floats("x", None, float("inf"), *[n / 7 for n in range(count - 2)])
    ran(here, batch([0] * count, texts("t", *TEXTS), numbers, flags, rows=list(range(count))))
    return here


def test_any_text_comes_through_to_python(odd: Lab, tmp_path: Path) -> None:
    check = f"assert [None if pandas.isna(t) else t for t in frame.t] == {TEXTS!r}, frame.t.tolist()\n"
    code = through_csv("python", "pi", odd.root) + check + "assert frame.x[1] == float('inf')\n"
    run(tmp_path, sys.executable, "-", code=code)


def test_any_text_comes_through_to_r(odd: Lab, tmp_path: Path) -> None:
    points = ["NA" if text is None else f"intToUtf8(c({', '.join(map(str, map(ord, text)))}))" for text in TEXTS]
    check = f"""
stopifnot(identical(rows$t, c({", ".join(points)})))
stopifnot(identical(rows$x[1:4], c(NA, Inf, 0, 1 / 7)), identical(rows[["my label"]][1:3], c(NA, TRUE, FALSE)))
"""
    run(tmp_path, "Rscript", "-", code=through_csv("r", "pi", odd.root) + check)


def test_any_text_comes_through_to_octave(odd: Lab, tmp_path: Path) -> None:
    check = """
assert(isequaln(rows.x(1:4), [NaN; Inf; 0; 1 / 7]) && isequaln(rows.('my label')(1:3), [NaN; 1; 0]));
file = fopen('texts', 'w');
cellfun(@(text) fwrite(file, [text char(255)]), rows.t);
fclose(file);
"""
    code = through_csv("matlab", "pi", odd.root) + check
    run(tmp_path, "octave-cli", "--quiet", "--no-init-file", code=code)
    assert (tmp_path / "texts").read_bytes() == b"".join((text or "").encode() + b"\xff" for text in TEXTS)
