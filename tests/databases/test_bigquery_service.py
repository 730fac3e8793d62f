"""A BigQuery that is busy, refuses or is not there, which its emulator cannot show: a server of our own answers so."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.databases.bigquery.database import BigqueryDatabase
from ems.databases.bigquery.service import EMULATOR

ANSWER = {
    "kind": "bigquery#queryResponse",
    "jobComplete": True,
    "jobReference": {"projectId": "p", "jobId": "j", "location": "US"},
    "schema": {"fields": [{"name": "n", "type": "INTEGER"}]},
    "rows": [{"f": [{"v": "7"}]}],
    "totalRows": "1",
}


def fault(code: int, reason: str, message: str = "no") -> tuple[int, dict]:
    return code, {"error": {"code": code, "message": message, "errors": [{"reason": reason, "message": message}]}}


@contextmanager
def answering(*answers: tuple[int, dict], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A service that gives these answers in turn, the last one for ever; the requests that came."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            requests.append(self.path)
            code, body = answers[min(len(requests), len(answers)) - 1]
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv(EMULATOR, f"http://127.0.0.1:{server.server_port}")
    try:
        yield requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def asked(wait_s: float) -> list[tuple]:
    with closing(BigqueryDatabase("bigquery://p/lab", wait_s, first_pause_s=0.01)) as made, made._bigquery.mapped():
        return [row.values() for row in made._bigquery.query("SELECT 7 AS n")]


@pytest.mark.parametrize(
    "trouble",
    [
        fault(403, "rateLimitExceeded"),
        fault(403, "quotaExceeded"),
        fault(429, "rateLimitExceeded"),
        fault(500, "backendError"),
        fault(500, "internalError"),
        fault(502, "badGateway"),
        fault(503, "backendError"),
        fault(400, "jobRateLimitExceeded"),
        fault(400, "invalidQuery", "Transaction is aborted due to concurrent update against table p:lab.experiment."),
        fault(409, "duplicate", "Already Exists: Job p:US.j"),
        fault(404, "notFound", "Not found: Job p:US.j"),
        fault(400, "invalidQuery", 'Failed to alter table "t" because it was reverted by a concurrent transaction.'),
        fault(400, "invalidQuery", "Could not serialize access to table p:lab.run due to concurrent update"),
        fault(400, "invalid", "Failed to commit: Attempting to modify table t but another transaction has altered it"),
    ],
)
def test_a_busy_service_is_asked_again(trouble, monkeypatch):
    with answering(trouble, trouble, trouble, (200, ANSWER), monkeypatch=monkeypatch) as requests:
        assert asked(wait_s=30) == [(7,)]
    assert len(requests) == 4


@pytest.mark.parametrize("trouble", [fault(403, "quotaExceeded", "too many jobs"), fault(503, "backendError", "later")])
def test_a_service_that_stays_busy_is_unavailable(trouble, monkeypatch):
    said = r"does not answer \((too many jobs|later)\)(.|\n)*try again"
    with answering(trouble, monkeypatch=monkeypatch) as requests, pytest.raises(DatabaseUnavailable, match=said):
        asked(wait_s=0.2)
    assert len(requests) > 2


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (fault(403, "accessDenied", "no jobs.create"), r"refuses you \(no jobs.create\)(.|\n)*roles/bigquery.jobUser"),
        (fault(404, "notFound", "Not found: Dataset p:lab"), r"has no tables yet(.|\n)*ems up lab"),
        (fault(400, "invalidQuery", "Syntax error"), r"refused a call \(Syntax error\)"),
    ],
)
def test_what_does_not_pass_is_told_at_once(trouble, said, monkeypatch):
    with answering(trouble, monkeypatch=monkeypatch) as requests, pytest.raises(DatabaseError, match=said) as raised:
        asked(wait_s=30)
    assert not isinstance(raised.value, DatabaseUnavailable)
    assert len(requests) == 1


def test_nobody_there(monkeypatch):
    monkeypatch.setenv(EMULATOR, "http://127.0.0.1:9")
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        asked(wait_s=0.2)


def test_nobody_logged_in(monkeypatch, tmp_path):
    monkeypatch.delenv(EMULATOR)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    with pytest.raises(DatabaseError, match=r"Google does not know who you are(.|\n)*gcloud auth"):
        asked(wait_s=0.2)
