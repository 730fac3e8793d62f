from __future__ import annotations

from pathlib import Path
from threading import Event, Thread

import pytest

from ems.node.environments import claims
from tests.processes import eventually

ELSEWHERE = "another-node 4711 12345"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claims, "LOOK_S", 0.05)
    monkeypatch.setattr(claims, "BEAT_S", 0.2)
    monkeypatch.setattr(claims, "SILENT_S", 2.0)
    return tmp_path / "archive"


def test_the_claim_of_a_node_that_does_not_come_back_is_taken_over(folder):
    said: list[str] = []
    assert claims._take(folder.with_name("archive.building"), ELSEWHERE)
    with claims.turn(folder, said.append) as mine:
        assert mine
    who = "process 4711 of another-node"
    assert said == [f"{who} builds it", f"{who} began to build it, and does not run any more"]
    assert not list(folder.parent.iterdir())


def test_one_that_beats_is_waited_for(folder, monkeypatch):
    monkeypatch.setattr(claims, "builder", lambda: ELSEWHERE)
    built, said, got = Event(), [], []

    def build() -> None:
        with claims.turn(folder, said.append):
            assert built.wait(60)

    def wait() -> None:
        with claims.turn(folder, said.append) as mine:
            got.append(mine)

    builder = Thread(target=build)
    builder.start()
    eventually(folder.with_name("archive.building").exists)
    monkeypatch.setattr(claims, "builder", lambda: "me 1 2")
    waiter = Thread(target=wait)
    waiter.start()
    waiter.join(2 * claims.SILENT_S)
    assert waiter.is_alive() and said == ["process 4711 of another-node builds it"]
    built.set()
    for each in (builder, waiter):
        each.join(60)
    assert got == [False]
