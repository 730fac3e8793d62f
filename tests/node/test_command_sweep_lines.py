"""Programs that stay: points as lines of JSON, in Python, C, R and Octave."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ems.databases import State
from tests.node.bench import Bench, bench, family
from tests.node.test_command_sweep import Programs, kill
from tests.processes import PATIENCE_S, alive, eventually

__all__ = ["bench"]

SAMPLES = Path(__file__).parents[2] / "experiments/lines"
PROGRAM = """
import json, os, signal, sys, time
print("started", file=sys.stderr)
for line in sys.stdin:
    p = json.loads(line)
    x = p["x"]
    answer = {"point": p["point"], "y": x / 7, "label": p["label"], "x": x}
    if x == 5:
        answer = {"point": p["point"]}
    if x == 6:
        answer = {"point": p["point"], "rows": [{"y": 0.5}, {"y": 1.5}]}
    exec(p["trouble"])
    print(json.dumps(answer), flush=True)
"""


def lines(bench: Bench, trouble: str = "", points: int = 40, **options: object) -> Programs:
    parameters = {"label": "ü", "trouble": trouble}
    command = ["python", "job.py"]
    return Programs(bench, command, PROGRAM, points, protocol="lines", parameters=parameters, **options)


def test_one_program_answers_many_points_with_one_row_several_or_none(bench: Bench) -> None:
    programs = lines(bench, workers=2)
    assert programs.run() == (State.SUCCEEDED, 40, 0), programs.log()
    found = bench.values()
    rows = sorted(zip(found["x"], found["y"], strict=True))
    plain = [(x, x / 7) for x in range(40) if x not in (5, 6)]
    assert rows == sorted([*plain, (6, 0.5), (6, 1.5)])
    assert set(found["label"]) == {"ü", None}
    assert family(programs.run_dir) == []


@pytest.mark.parametrize(
    ("trouble", "failed", "said"),
    [
        ('if x == 7: answer = {"point": p["point"], "error": "no five"}', [7], "no five"),
        ("if x == 7: raise ValueError('no seven')", [7], "ValueError: no seven (exit code 1)"),
        ("if x == 7: sys.exit(0)", [7], "The program ended before it had answered (exit code 0)."),
        ("if x == 7: os.kill(os.getpid(), 11)", [7], "3 times: started (killed by signal 11 (SIGSEGV))"),
        ("if x == 7: print('seven')", [7], 'The program printed what is not an answer: "seven" is not JSON.'),
        ("if x == 7: print('{}')", [7], '"{}" lacks the `point` that it answers.'),
        ("if x == 7: print('[7]')", [7], '"[7]" is not an object.'),
        ("if x == 7: answer['y'] = [1]", [7], "Column 'y' is a list: [1]."),
        ("if x == 7: answer['x'] = 8", [7], "Column 'x' of the result is named like a parameter, and is 8 where that"),
        ("if x == 7: answer['y'] = 'text'", [7], "Column 'y' was float64 so far"),
        ("if x == 7: answer['rows'] = [3]", [7], "`rows` have 3: allowed are objects"),
        ("if x == 7: time.sleep(99)", [7], "It took longer than point_timeout_s: 1; stopped."),
        ("if x == 7: waste = b'x' * 500_000_000; time.sleep(3)", [7], "3 times: "),
    ],
)
def test_the_point_at_work_is_blamed_and_no_other(bench: Bench, trouble: str, failed: list[int], said: str) -> None:
    limits: dict[str, object] = {"point_timeout_s": 1} if "sleep(99)" in trouble else {}
    limits |= {"memory_mb": 200} if "waste" in trouble else {}
    programs = lines(bench, trouble, **limits)
    assert programs.run() == (State.FAILED, 40 - len(failed), len(failed)), programs.log()
    errors = programs.errors()
    assert list(errors) == failed
    assert said in errors[7], errors[7]


HOLDING = """
import json, os, pathlib, select, sys
held, once, rest = [], pathlib.Path(sys.argv[1]), b""
while True:
    if held and not select.select([0], [], [], 1)[0]:
        held[len(held) // 10] = "odd"
        once.touch()
        print(*held, sep="\\n", flush=True)
        held = []
    if not (block := os.read(0, 1 << 16)):
        break
    *lines, rest = (rest + block).split(b"\\n")
    for line in lines:
        p = json.loads(line)
        held.append(json.dumps({"point": p["point"], "y": p["x"] / 7}))
        if p["point"] < 1000 or once.exists():
            print(held.pop(), flush=True)
"""


def test_what_a_program_has_said_after_a_line_that_stopped_it_is_void(bench: Bench) -> None:
    command = ["python", "job.py", str(bench.root / "once")]
    programs = Programs(bench, command, HOLDING, 3000, protocol="lines")
    assert programs.run() == (State.FAILED, 2999, 1), programs.log()
    ((failed, error),) = programs.errors().items()
    assert failed >= 1000 and 'is not an answer: "odd" is not JSON' in error
    assert bench.values()["x"] == [x for x in range(3000) if x != failed]


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["Rscript", "model.R"], "model.R"),
        (["octave-cli", "--no-init-file", "-q", "model.m"], "model.m"),
        (["bash", "-c", "cc -O2 -o model model.c -lm && exec ./model"], "model.c"),
    ],
)
def test_the_samples_in_r_octave_and_c_answer(bench: Bench, command: list[str], file: str) -> None:
    sweep = {"rate": [0.1, 1.0, 2.5], "size": [10, 20]}
    code = {file: (SAMPLES / file).read_text()}
    programs = Programs(bench, command, code, 6, sweep, protocol="lines")
    assert programs.run() == (State.FAILED, 4, 2), programs.log()
    assert set(programs.errors().values()) == {"rate is above 2"}
    found = bench.values()
    expected = [math.exp(-rate) * size for rate in (0.1, 1.0) for size in (10, 20)]
    assert found["value"] == pytest.approx(expected, rel=1e-14)


def test_an_error_is_tried_again(bench: Bench) -> None:
    trouble = """
if x == 7 and not os.path.exists(os.environ["EMS_PARAMETERS"] + ".seen"):
    open(os.environ["EMS_PARAMETERS"] + ".seen", "w").close()
    raise ValueError("once")
"""
    assert lines(bench, trouble, retries=1).run() == (State.SUCCEEDED, 40, 0)


@pytest.mark.parametrize("victim", ["agent", "programs.driver", "programs.worker", "program"])
def test_whoever_is_killed_twice_nothing_runs_on_and_each_point_is_there_once(bench: Bench, victim: str) -> None:
    trouble = """
run_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.environ["EMS_PARAMETERS"])))
if x == 20 and os.path.exists(run_dir + "/wait"):
    with open(run_dir + "/pids", "a") as pids:
        pids.write(f"{os.getpid()}\\n")
    time.sleep(1000)
"""
    programs = lines(bench, trouble)
    (programs.run_dir / "wait").touch()
    agent = bench.start(programs.run_dir)
    file = programs.run_dir / "pids"
    for number in (1, 2):
        eventually(lambda number=number: file.exists() and len(file.read_text().split()) >= number)
        if number == 2:
            (programs.run_dir / "wait").unlink()
        kill(programs, victim, agent, int(file.read_text().split()[-1]))
        if victim in {"agent", "programs.driver"}:
            agent.wait(PATIENCE_S)
            eventually(lambda: not any(alive(int(pid)) for pid in file.read_text().split()))
            if victim != "agent":
                bench.database.reopen("e1")
            agent = bench.start(programs.run_dir)
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_done, row.points_failed) == (State.SUCCEEDED, 40, 0), programs.log()
    assert len(bench.values()["x"]) == 40
    assert not any(alive(int(pid)) for pid in file.read_text().split())


def test_a_program_that_is_not_there_ends_the_run(bench: Bench) -> None:
    programs = Programs(bench, ["no-such-program"], points=1000, protocol="lines")
    state, done, _ = programs.run()
    assert (state, done) == (State.FAILED, 0)
    assert "'no-such-program' could not be started: No such file or directory" in bench.row().error


def test_answers_with_rows_that_nobody_wants_end_the_run(bench: Bench) -> None:
    programs = lines(bench, results="none", points=1000)
    assert programs.run()[0] is State.FAILED, programs.log()
    assert bench.row().error.startswith("Point 0 has rows, but the stack file says `results: none`")
