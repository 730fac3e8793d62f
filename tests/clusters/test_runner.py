"""A runner while what it asks is away; with real databases and remotes: tests/end_to_end/test_runner.py."""

import time
import uuid

from ems.base.errors import DatabaseUnavailable
from ems.clusters import runner
from ems.databases import ClusterRow
from ems.lab import Lab


def test_one_that_begins_while_the_database_is_away_waits_for_it(tmp_path, monkeypatch):
    row = ClusterRow(id="blade", kind="server", settings="{}")
    answers, said = iter([DatabaseUnavailable("It is away."), row]), []

    def answer(*_):
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(runner, "_row", answer)
    monkeypatch.setattr(runner.Runner, "look", lambda self: [])
    monkeypatch.setattr(time, "sleep", lambda _: None)
    (tmp_path / ".ems").mkdir()
    runner.attend(Lab(tmp_path, "lab", uuid.uuid4(), "sqlite:x.db"), "blade", said.append, once=True)
    assert said == ["The database is away, waiting for it: It is away.", "The database is back."]
