"""Points of a command's sweep whose programs write under names of their own, and leave files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from ems.databases import State
from ems.stack.models import ExperimentSpec
from tests.node.bench import Bench, bench
from tests.node.test_command_sweep import Programs

__all__ = ["bench"]


def programs(bench: Bench, script: str, results: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> Programs:
    """`script` of the shell, once for each x of 0 to 5."""
    validate = ExperimentSpec.model_validate

    def described(fields: dict[str, Any]) -> ExperimentSpec:
        return validate({**fields, "results": {"table": "r", **results}})

    monkeypatch.setattr(ExperimentSpec, "model_validate", described)
    files = {"final.txt": "-1 -1\n", "input.csv": "n\n1\n"}
    return Programs(bench, ["sh", "-c", script, "sh", "{x}"], files, points=6, workers=2)


def test_points_append_to_a_file_of_one_name_each_in_its_own_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees what another point wrote, nor the file of that name that the code has."""
    form = {"files": ["final.txt"], "format": {"type": "csv", "delimiter": " ", "header": ["n", "y"]}}
    script = "cat input.csv > copy.csv; echo $1 0.5 >> final.txt; echo $1 1.5 >> final.txt"
    sweep = programs(bench, script, form, monkeypatch)
    assert sweep.run() == (State.SUCCEEDED, 6, 0), sweep.log()
    assert bench.values() == {
        "x": [x for x in range(6) for _ in range(2)],
        "n": [x for x in range(6) for _ in range(2)],
        "y": [0.5, 1.5] * 6,
    }
    found = json.loads(bench.row().files_left)
    assert [file["name"] for file in found] == [f"point-{x}/copy.csv" for x in range(6)]


def test_points_print_their_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = programs(bench, """echo "{{\\"y\\": $1}}"; echo noise >&2""", {"stdout": "jsonl"}, monkeypatch)
    assert sweep.run() == (State.SUCCEEDED, 6, 0), sweep.log()
    assert bench.values() == {"x": list(range(6)), "y": list(range(6))}
    assert bench.row().files_left == ""


def test_a_point_whose_file_cannot_be_read_fails_with_the_fix(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    script = """if [ $1 = 3 ]; then echo '(3, 0.5)' > a.csv; else printf "y\\n$1\\n" > a.csv; fi"""
    sweep = programs(bench, script, {"files": ["*.csv"]}, monkeypatch)
    assert sweep.run() == (State.FAILED, 5, 1), sweep.log()
    assert "a.csv:1: a tuple of Python" in sweep.errors()[3] and "print(*row" in sweep.errors()[3]
    assert [file["name"] for file in json.loads(bench.row().files_left)] == ["point-3/a.csv"]
