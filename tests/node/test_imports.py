from __future__ import annotations

import subprocess
import sys

import pytest

FOREIGN = {"pulumi", "rich", "pandas", "git", "pyarrow", "typer", "matplotlib", "numpy"}


@pytest.mark.parametrize(
    "module", ["ems.node.agent.agent", "ems.node.job.keeper", "ems.spool.folder", "ems.databases.sqlite.database"]
)
def test_what_runs_in_a_place_loads_no_engine_and_no_rendering_library(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert FOREIGN & {name.partition(".")[0] for name in loaded} == set()


def test_the_keeper_loads_the_standard_library_alone() -> None:
    script = "import sys, ems.node.job.keeper; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True).stdout
    assert {"psutil", "pydantic", "sqlalchemy"} & {name.partition(".")[0] for name in loaded.split()} == set()
