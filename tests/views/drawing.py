"""What the tests of views draw, and how it looks on a terminal of a given width."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

from rich.console import Console

from ems.databases import Experiment, State
from tests.databases.cases import REGISTRATION

THEN = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
FINISHED = Experiment(
    registration=REGISTRATION,
    state=State.SUCCEEDED,
    attempt=1,
    wanted_attempt=1,
    points_done=8,
    points_failed=0,
    rows_stored=1234,
    machines=0,
    cost_usd=1234.5,
    cancel_requested=False,
    registered_at=THEN,
    started_at=THEN,
    finished_at=THEN + timedelta(minutes=70),
    took_s=65 * 60,
)


def drawn(what: object, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(what)
    return console.file.getvalue()
