"""A mailbox beside the database that empties it, without a network between them."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ems.clusters.pull import Pull
from ems.databases import Registration
from ems.databases.sqlite.database import SqliteDatabase
from ems.lab import Lab
from ems.node.mailbox.database import Mailbox
from ems.node.mailbox.exchange import contents, exchange
from tests.databases.cases import REGISTRATION, batch, fill_lab, ints

ID = REGISTRATION.id
SWEEP = replace(REGISTRATION, spec=json.dumps({"job": {"sweep": []}}))
COMMAND = replace(REGISTRATION, spec=json.dumps({"job": {"command": ["true"]}}), points_total=1)


class Distance:
    """A lab on SQLite, a run's folder elsewhere, and what happens on the way between them."""

    def __init__(self, folder: Path, registration: Registration = SWEEP) -> None:
        self.lab = Lab(folder / "lab", "lab", uuid.UUID(int=1), "sqlite:///ems.db")
        self.lab.root.mkdir(parents=True)
        self.there = folder / "there"
        self.there.mkdir()
        self.database = SqliteDatabase(self.lab.root / "ems.db")
        self.database.create()
        fill_lab(self.database)
        self.database.register(registration)
        self.mailbox = Mailbox(self.there)
        self.on_the_way: Callable[[dict[str, Any]], None] = lambda question: None
        self.on_the_way_back: Callable[[dict[str, Any]], None] = lambda answer: None
        self.pull = self.puller()

    def puller(self) -> Pull:
        """What a command that was just started has."""
        return Pull(self.lab, ID, self)

    # As of a Site

    def run_dir(self, _experiment_id: str) -> Path:
        return self.there

    def answered(self, _module: str, _code: Path, question: dict[str, Any]) -> dict[str, Any]:
        given = {key: value for key, value in question.items() if key not in {"ask", "run_dir"}}
        self.on_the_way(given)
        ask = {"exchange": exchange, "contents": contents}[question["ask"]]
        answer = ask(self.there, **json.loads(json.dumps(given)))
        self.on_the_way_back(answer)
        content = answer.pop("content")
        return {**json.loads(json.dumps(answer)), "content": content}

    def answered_each(self, module: str, code: Path, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.answered(module, code, question) for question in questions]

    def outbox(self) -> list[Path]:
        return sorted((self.there / "mailbox/outbox").glob("*"))


@pytest.fixture
def far(tmp_path):
    distance = Distance(tmp_path)
    distance.pull.sync()
    return distance


def claimed(far, lease_s=30.0, agent="a"):
    claim = far.mailbox.claim(ID, agent=agent, lease_s=lease_s)
    assert claim
    return claim


def stored(far, claim, *points, attempt=None):
    far.mailbox.store(claim, batch([*points], ints("n", *points), replaces=points), attempt)


def backup(far):
    with sqlite3.connect(far.lab.root / "ems.db") as there, sqlite3.connect(":memory:") as copy:
        there.backup(copy)
        return copy.serialize()


def restore(far, copy):
    for file in far.lab.root.glob("ems.db*"):
        file.unlink()
    (far.lab.root / "ems.db").write_bytes(copy)
