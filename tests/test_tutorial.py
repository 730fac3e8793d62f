"""The tutorial's programs give the numbers that it shows, and the SQL of the manual can be run."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml

from ems.databases import tables
from ems.stack import sweep_forms
from ems.sweep import Sweep
from tests.documentation import ROOT, Page

TUTORIAL = Page(ROOT / "docs/tutorial.md")


def job(block: str) -> dict[str, Any]:
    return yaml.safe_load(block)["config"]["ems:experiment"]["job"]


def test_the_first_program_gives_the_rows_that_are_shown(tmp_path: Path) -> None:
    parameters = tmp_path / "parameters.json"
    parameters.write_text(json.dumps(job(TUTORIAL.blocks("yaml")[0])["parameters"]))
    places = {"EMS_PARAMETERS": str(parameters), "EMS_RESULTS_DIR": str(tmp_path)}
    program = [sys.executable, "-c", TUTORIAL.blocks("python")[0]]
    done = subprocess.run(program, env={**os.environ, **places}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in TUTORIAL.text
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shown = [line.split() for line in TUTORIAL.text.splitlines()]
    for number, row in enumerate(rows):
        assert ["0", str(number), row["dose"], f"{float(row['response']):.6g}"] in shown


def test_the_sweep_gives_the_rows_that_are_shown() -> None:
    names: dict[str, Any] = {}
    exec(TUTORIAL.blocks("python")[1], names)
    values = job(TUTORIAL.blocks("yaml")[1])["sweep"]
    seed = Sweep.of(sweep_forms.recorded([values])).parameters(0)["seed"]
    assert values["seed"] == {"count": 100} and values["steps"][-1] == 10000
    assert names["distance"](10000, seed)["distance"] == pytest.approx(28.35389274730829)
    assert "\n    2,0,10000,28.35389274730829\n" in TUTORIAL.text


def test_the_sql_of_the_manual_can_be_run() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        tables.metadata.create_all(connection)
        connection.exec_driver_sql("CREATE TABLE pi (experiment_id, point, row, darts, estimate)")
        (block,) = Page(ROOT / "docs/results.md").blocks("sql")
        statements = [statement for statement in block.split(";") if statement.strip()]
        assert len(statements) == 2
        for statement in statements:
            assert connection.exec_driver_sql(statement).all() == []
