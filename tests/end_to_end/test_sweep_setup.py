"""A sweep with a set-up through the command line and the real engine."""

from __future__ import annotations

import yaml

from tests.end_to_end.conftest import User
from tests.end_to_end.test_sweeps import Sweeper

CODE = """
import os, pathlib
import numpy
notes = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parents[2]

def load():
    with open(notes / "set-ups", "a") as calls:
        calls.write("x")
    return {"weights": numpy.arange(10**6) / 7, "offset": 3}

def f(a, x, context):
    return {"value": context["offset"] + context["weights"][a * x], "writable": context["weights"].flags.writeable}

def unready(a, x):
    return {"value": 0}
"""


def test_what_a_set_up_returns_reaches_each_point_and_is_made_once(user: User) -> None:
    sweeper = Sweeper(user.root, user.started)
    sweeper.sweep(CODE)
    file = sweeper.root / "stacks/Pulumi.e.yaml"
    described = yaml.safe_load(file.read_text())
    job = described["config"]["ems:experiment"]["job"]
    job |= {"setup": "experiments.e.job:load", "function": "experiments.e.job:unready"}
    file.write_text(yaml.safe_dump(described))
    sweeper.commit("A set-up")
    refused = sweeper.ems("check", "e", expect=2).stdout
    assert "job.setup: gives its value by the keyword `context`, which is not a parameter of unready" in refused
    job["function"] = "experiments.e.job:f"
    file.write_text(yaml.safe_dump(described))
    sweeper.commit("The function that takes it")
    sweeper.ems("up", "e")
    rows = sweeper.query("SELECT a, x, value, writable FROM e ORDER BY point")
    assert rows == [(a, x, 3 + a * x / 7, 0) for a in (1, 2) for x in range(30)]
    assert (sweeper.root / ".ems/set-ups").read_text() == "x"
    sweeper.assert_nothing_left()
