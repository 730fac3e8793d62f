"""Files that jobs leave in EMS_OUTPUT_DIR, from `ems up` to `ems outputs`."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import User
from tests.end_to_end.outputs import COMMAND, described, objects, outputs

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, pathlib, sys
folder = pathlib.Path(os.environ["EMS_OUTPUT_DIR"])
(folder / "plots").mkdir()
(folder / "plots/fit.png").write_bytes(b"x" * 1500)
(folder / "again.png").write_bytes(b"x" * 1500)
(folder / "model.bin").write_bytes(bytes(3_000_000))
(folder / "latest").symlink_to("model.bin")
"""


def test_what_a_command_leaves_is_kept_listed_and_brought(user: User) -> None:
    described(user, PROGRAM, COMMAND)
    user.ems("up", "e")
    listed = json.loads(user.ems("outputs", "e", "--json").stdout)
    assert [(each["name"], each["size"], each["media_type"], each["point"]) for each in listed] == [
        ("again.png", 1500, "image/png", 0),
        ("latest", 3_000_000, "application/octet-stream", 0),
        ("model.bin", 3_000_000, "application/octet-stream", 0),
        ("plots/fit.png", 1500, "image/png", 0),
    ]
    assert objects(user) == sorted(hashlib.sha256(content).hexdigest() for content in (b"x" * 1500, bytes(3_000_000)))
    shown = user.ems("outputs", "e").stdout
    assert "plots/fit.png" in shown and "1.5 kB" in shown
    assert "4 files, 6.0 MB in figures" in user.ems("outputs", "e", "--to", "figures").stderr
    assert (user.root / "figures/plots/fit.png").read_bytes() == b"x" * 1500
    user.ems("outputs", "e", "--to", "figures")
    (user.root / "figures/latest").write_text("mine")
    told = user.ems("outputs", "e", "--to", "figures", expect=2).stderr
    assert "latest is there already, and is another one" in told
    assert not list((user.root / ".ems/runs").glob("*/outputs")), "what is stored takes no room in the run's folder"


FUNCTION = """
import os, pathlib
def compute(x):
    if x % 2:
        pathlib.Path(os.environ["EMS_OUTPUT_DIR"], "half.txt").write_text(str(x // 2))
    if x == 7:
        raise ValueError("no seven")
    return {"y": x}
"""
EACH = """
import json, os, pathlib
x = json.loads(pathlib.Path(os.environ["EMS_PARAMETERS"]).read_text())["x"]
pathlib.Path(os.environ["EMS_OUTPUT_DIR"], "x.txt").write_text(str(x))
"""
LINES = """
import json, os, pathlib, sys
for line in sys.stdin:
    asked = json.loads(line)
    folder = pathlib.Path(os.environ["EMS_OUTPUT_DIR"], str(asked["point"]))
    folder.mkdir()
    (folder / "x.txt").write_text(str(asked["x"]))
    print(json.dumps({"point": asked["point"], "y": asked["x"]}), flush=True)
"""
GRID = [{"x": {"range": [10, 29, 1]}}]


def contents(user: User) -> list[tuple[int, str, str]]:
    """Point, name and content."""
    return [(each["point"], each["name"], (user.root / each["path"]).read_text()) for each in outputs(user)]


def test_each_point_of_a_function_has_its_own(user: User) -> None:
    job = {"function": "experiments.e.job:compute", "sweep": [{"x": {"range": [0, 9, 1]}}], "max_failures": 1}
    shutil.copytree(ROOT / "environments/svd", user.root / "environments/svd")
    described(user, FUNCTION, job, {"table": "e"}, environment="svd")
    user.ems("up", "e")
    assert contents(user) == [(point, "half.txt", str(point // 2)) for point in range(1, 10, 2)]
    assert len(objects(user)) == 5 and (user.root / "got/point-9/half.txt").exists()


@pytest.mark.parametrize(("program", "more"), [(EACH, {}), (LINES, {"protocol": "lines"})])
def test_each_point_of_a_program_has_its_own(user: User, program: str, more: dict[str, Any]) -> None:
    job = {**COMMAND, "sweep": GRID, **more}
    described(user, program, job, {"table": "e"} if more else "none")
    user.ems("up", "e")
    assert contents(user) == [(point, "x.txt", str(point + 10)) for point in range(20)]
