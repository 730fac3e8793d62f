"""What `pip install` of the wheel alone gives somebody who never saw this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import pytest
import yaml

from ems.base.cache import cache_dir
from ems.base.process import uv
from ems.engine import install as engine
from tests.processes import PATIENCE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--wheel", "--build-constraints", ROOT / "requirements/dev.txt", "--out-dir", folder, ROOT)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_has_what_runs_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {
        str(path.relative_to(ROOT)) for kind in ("templates", "engine_sources") for path in tracked(f"ems/{kind}")
    }
    assert wanted <= set(names) and {"ems/py.typed", "ems/cli/app.py"} <= set(names)
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ems", "ems_experiments"}
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]


def tracked(folder: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.splitlines()]


def test_the_wheel_alone_makes_a_lab_that_runs(wheel: Path, tmp_path: Path) -> None:
    engine.ensure()
    venv, lab = tmp_path / "venv", tmp_path / "a folder" / "mylab"
    uv("venv", "--quiet", "--no-project", "--python", sys.executable, venv)
    pinned = ROOT / "requirements/ems.txt"
    uv("pip", "install", "--quiet", "--python", venv / "bin/python", "--constraints", pinned, wheel, cwd=tmp_path)

    def run(*words: str, cwd: Path) -> str:
        """In the environment of somebody who has nothing set: the engine alone is there already."""
        clean = {"PATH": f"{venv}/bin:{os.defpath}", "HOME": str(tmp_path), "EMS_CACHE_DIR": str(cache_dir())}
        done = subprocess.run(
            words, cwd=cwd, env=clean, check=False, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    assert run("python", "-c", "import ems; print(ems.__file__)", cwd=tmp_path).startswith(str(venv))
    run("ems", "init", str(lab), cwd=tmp_path)
    project = yaml.safe_load((lab / "Pulumi.yaml").read_text())
    assert project["name"] == "mylab" and uuid.UUID(project["config"]["ems:lab_id"]["value"]).version == 4
    assert "succeeded" in run("ems", "up", cwd=lab)
    header, *rows = run("ems", "results", "pi", "--format", "csv", cwd=lab).splitlines()
    assert header == "point,row,darts,estimate" and len(rows) == 20
    assert 3.1 < float(rows[-1].rpartition(",")[2]) < 3.2
    assert "3 unchanged" in run("ems", "pulumi", "preview", "--stack", "pi", cwd=lab)
    assert run("git", "status", "--porcelain", cwd=lab) == ""
