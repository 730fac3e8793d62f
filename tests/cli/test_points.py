"""`ems points`: what of a sweep is still to be computed."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import textwrap

import pytest

from ems.lab import Lab
from ems.sweep import Sweep, exclusion
from ems.views.points import STATES, OpenPoints, chosen, write_csv, write_json
from tests.cli.running import run

JOB = {
    "function": "job:f",
    "sweep": [{"n": [1, 2], "s": ["a", 'b "c"']}, {"n": [3, 4], "x": [0.5, True and 2.0], "t": [True]}],
    "exclude": [{"n": 4}],
}
KNOWN = [("stored", range(2)), ("failed", range(3, 4)), ("due", range(4, 5))]


def found(known=KNOWN, job=JOB) -> OpenPoints:
    return OpenPoints("e", Sweep.of(job["sweep"]), exclusion.of_job(job), known)


def test_points_that_are_not_stored_come_in_order_with_their_state():
    points = found()
    assert [(point.number, point.state) for point in points.walk(STATES)] == [
        (2, "missing"),
        (3, "failed"),
        (4, "due"),
        (5, "missing"),
    ]
    assert [point.number for point in points.walk(chosen(missing=True, failed=False))] == [2, 4, 5]
    assert [point.number for point in points.walk(chosen(missing=False, failed=True))] == [3]
    assert chosen(missing=True, failed=True) == chosen(missing=False, failed=False) == STATES
    assert points.count(STATES) == 4 and points.count(["failed"]) == 1
    assert len(list(found([]).walk(STATES))) == 6  # those that are left out are never missing


def test_json_and_csv_have_the_parameters_as_they_are():
    said = io.StringIO()
    write_json(found().walk(STATES), said)
    first, *_, last = json.loads(said.getvalue())
    assert first == {"point": 2, "state": "missing", "parameters": {"n": 2, "s": "a"}}
    assert last == {"point": 5, "state": "missing", "parameters": {"n": 3, "t": True, "x": 2.0}}
    said = io.StringIO()
    write_csv(found().walk(STATES), found().sweep.names, said)
    assert said.getvalue() == (
        "point,point_state,n,s,t,x\n"
        '2,missing,2,"a",,\n3,failed,2,"b ""c""",,\n4,due,3,,True,0.5\n5,missing,3,,True,2.0\n'
    )
    assert [len(row) for row in csv.reader(io.StringIO(said.getvalue()))] == [6] * 5
    said = io.StringIO()
    write_json(iter(()), said)
    assert json.loads(said.getvalue()) == []


SWEEP = """config:
  ems:experiment:
    project: first
    experimenter: me
    funding: unfunded
    environment: pi
    job:
      function: experiments.pi.pi:sample
      sweep: {n: [10, 20, 30], seed: {count: 10}}
      exclude: n > 20
    results: {table: grid}
"""


def test_of_a_stack_that_never_ran_all_are_missing(here: Lab):
    (here.stacks_dir / "Pulumi.grid.yaml").write_text(SWEEP)
    found = json.loads(run("points", "grid", "--json").stdout)
    assert [point["point"] for point in found] == list(range(20))
    assert {point["state"] for point in found} == {"missing"}
    assert found[-1]["parameters"]["n"] == 20 and set(found[-1]["parameters"]) == {"n", "seed"}
    lines = run("points", "grid", "--missing", "--csv").stdout.splitlines()
    assert lines[0] == "point,point_state,n,seed" and len(lines) == 21
    assert run("points", "grid", "--failed", "--csv").stdout == "point,point_state,n,seed\n"
    assert "of 20 points none failed" in run("points", "grid", "--failed").stdout
    shown = run("points", "grid").stdout
    assert "grid: 20 points not stored: 20 missing" in shown


def test_what_has_no_points_is_told(here: Lab):
    assert "pi is not a sweep: it has no points" in run("points", "pi", expect=2).stderr
    assert "lab is not the stack of an experiment" in run("points", "lab", expect=2).stderr
    assert "There is no stack 'nothing'" in run("points", "nothing", expect=2).stderr
    assert "two answers" in run("points", "pi", "--json", "--csv", expect=2).stderr


@pytest.mark.parametrize("form", ["csv", "json"])
def test_ten_million_points_take_no_memory(form: str):
    code = f"""
        import resource, sys
        from ems.views.points import *
        from ems.sweep import exclusion
        axes = {{"range": [1, 100, 1]}}
        job = {{"sweep": [{{"a": axes, "m": axes, "n": axes, "s": {{"count": 10}}}}], "exclude": ["m > n"]}}
        failed = (("failed", range(i, i + 1)) for i in range(0, 10**7, 1000))
        found = OpenPoints("e", Sweep.of(job["sweep"]), exclusion.of_job(job), failed)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        some = islice(found.walk(STATES), 500_000)
        file = open("/dev/null", "w")
        write_csv(some, found.sweep.names, file) if {form!r} == "csv" else write_json(some, file)
        print(found.count(STATES), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    count, grown_kb = map(int, done.stdout.split())
    assert count > 5_050_000 and grown_kb < 20_000
