"""What points left on a machine of workers: told once it is stored, of each file the newest, and once."""

from __future__ import annotations

import json
import threading

import pytest

from ems.node.job import carried
from ems.node.job.outputs import READY, TAKEN


@pytest.fixture
def outputs(tmp_path):
    for name in (READY, TAKEN):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    return tmp_path / "outputs"


@pytest.fixture
def notes(tmp_path):
    return carried.Notes(tmp_path / "carried")


def test_of_each_file_the_newest_is_told_once(outputs, notes, tmp_path):
    for number, name in enumerate(["a", "b", "a"]):
        notes.add(7, name, {"name": name, "number": number})
    notes.add(8, "a", {"name": "a", "number": 3})
    told = carried.awaited(outputs, tmp_path / "carried", [6, 7])
    assert sorted((each["name"], each["number"]) for each in told) == [("a", 2), ("b", 1)]
    assert carried.awaited(outputs, tmp_path / "carried", [6, 7]) == []
    assert [each["number"] for each in notes.take(8)] == [3]


@pytest.mark.parametrize("where", [READY, TAKEN])
def test_it_is_told_when_it_is_stored_and_not_before(outputs, notes, tmp_path, where):
    waiting = outputs / where / "point-7"
    waiting.mkdir()
    told, ended = [], threading.Event()

    def ask():
        told.extend(carried.awaited(outputs, tmp_path / "carried", [7]))
        ended.set()

    threading.Thread(target=ask, daemon=True).start()
    assert not ended.wait(0.2)
    notes.add(7, "a", {"name": "a"})
    waiting.rmdir()
    assert ended.wait(60) and told == [{"name": "a"}]


def test_points_that_leave_nothing_wait_for_nothing(tmp_path):
    assert carried.awaited(tmp_path / "nothing", tmp_path / "carried", range(1_000)) == []


def test_what_is_handed_on_lies_where_the_agent_looks(outputs):
    carried.hand_on(outputs, [{"point": 1}])
    carried.hand_on(outputs, [{"point": 2}, {"point": 3}])
    found = [json.loads(file.read_text()) for file in (outputs / carried.NOTED).iterdir()]
    assert sorted(found, key=len) == [[{"point": 1}], [{"point": 2}, {"point": 3}]]
