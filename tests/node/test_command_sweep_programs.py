"""Programs that a grid may run: what they are told, what they leave, how they misbehave, and who kills them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems.databases import State
from ems.node.driver.points import Task
from ems.node.driver.position import SIZE, Position
from ems.node.programs.order import ProgramOrder
from ems.node.programs.process_work import ProcessWork
from ems.node.programs.site import Site
from ems.sweep import Sweep, placeholders
from tests.node.bench import Bench, bench, family
from tests.node.test_command_sweep import Programs, kill
from tests.processes import PATIENCE_S, alive, eventually

__all__ = ["bench"]

TELLS = """
import json, os, sys
told = {"argv": sys.argv[1:], "env": os.environ["LABEL"], "json": json.load(open(os.environ["EMS_PARAMETERS"]))}
with open(os.environ["EMS_RESULTS_DIR"] + "/told.jsonl", "w") as file:
    json.dump({"told": json.dumps(told)}, file)
"""
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
VALUES = st.one_of(
    st.sampled_from(["-1", "--x", "", " ", "a b", "'", '"', "{", "}", "{{x}}", "{a}", "$HOME", "`ls`", "é\n\t☃", "*"]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    TEXTS,
)


@pytest.fixture(scope="module")
def teller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPoolExecutor]:
    """A process that runs a program which tells what it is told; it ends all its children: this one may have others."""
    folder = tmp_path_factory.mktemp("teller")
    with ProcessPoolExecutor(1, get_context("spawn"), _begin_telling, (folder,)) as process:
        yield process


def _begin_telling(folder: Path) -> None:
    global _work  # noqa: PLW0603  (of a process of its own)
    _work = _telling(folder)


def _told(value: object) -> tuple[list[dict[str, str]], str]:
    """The rows of the program, and its error."""
    return _work._call(0, {"a": value})  # type: ignore[arg-type, dict-item, return-value]


def _telling(folder: Path) -> ProcessWork:
    (folder / "code").mkdir()
    (folder / "code/tell.py").write_text(TELLS)
    names = {name: str(folder / name) for name in ("code", "spool", "done", "progress", "folder", "left")}
    names |= {"python": sys.executable, "source": "", "checkpoints": ""}
    command = [sys.executable, "tell.py", "{a}", "--out={a}.csv", "{{{a}}}", "{a}{b}"]
    options = {"function": "", "grids": [{"a": [1]}], "workers": 1, "threads": 1, "protocol": "process"}
    variables = dict(os.environ)
    order = ProgramOrder(
        **names,
        **options,
        command=command,
        env={"LABEL": "<{a}>"},
        variables=variables,
        parameters={"b": 0.5},
    )
    with (folder / "position").open("w+b") as memory:
        memory.truncate(SIZE)
        position = Position(memory.fileno())
    return ProcessWork(Task(print, Sweep.of(order.grids), 0, 0), Site(order, "w"), position, [], {})


@settings(max_examples=60, deadline=None)
@given(value=VALUES)
def test_a_program_sees_each_value_as_its_documented_text(teller: ProcessPoolExecutor, value: object) -> None:
    rows, error = teller.submit(_told, value).result(PATIENCE_S)
    assert error == ""
    told, text = json.loads(rows[0]["told"]), placeholders.text_of(value)
    assert told["argv"] == [text, f"--out={text}.csv", f"{{{text}}}", f"{text}0.5"]
    assert told["env"] == f"<{text}>"
    assert told["json"] == {"a": value, "b": 0.5}


def shell(bench: Bench, *scripts: str, **options: object) -> Programs:
    """A grid whose points are scripts of bash."""
    return Programs(bench, ["bash", "-c", "{x}"], points=len(scripts), sweep={"x": list(scripts)}, **options)


def test_fixed_names_do_not_collide_and_what_no_row_was_read_from_is_kept(bench: Bench) -> None:
    script = 'set -C; echo a > plot.pdf; echo b >> job.py; echo "y\n{}" > "$EMS_RESULTS_DIR/rows.csv"; wc -l < job.py'
    programs = shell(bench, *(script.format(y) for y in range(4)), workers=2, code={"job.py": "one line\n"})
    assert programs.run() == (State.SUCCEEDED, 4, 0), programs.log()
    assert bench.values()["y"] == [0, 1, 2, 3]
    left = programs.run_dir / "left/attempt-1"
    assert sorted(str(path.relative_to(left)) for path in left.rglob("*") if path.is_file()) == sorted(
        f"point-{point}/{name}" for point in range(4) for name in ("plot.pdf", "job.py")
    )
    assert (left / "point-3/job.py").read_text() == "one line\nb\n"
    assert not (programs.run_dir / "work").exists()


def test_misbehaviour_is_told_and_spares_other_points(bench: Bench) -> None:
    scripts = {
        "read line || echo y > $EMS_RESULTS_DIR/a.csv && echo 1 >> $EMS_RESULTS_DIR/a.csv": "",
        "printf 'y\n2' > $EMS_RESULTS_DIR/a.csv": "",  # a partial last line
        "head -c 300000000 /dev/zero; printf 'y\n3\n' > $EMS_RESULTS_DIR/a.csv": "",
        "sleep 1000": "It took longer than point_timeout_s: 3; stopped.",
        "printf 'y\n5\n' > $EMS_RESULTS_DIR/a.csv; echo why >&2; exit 7": "why (exit code 7)\n\nwhy",
        "echo out; exit 8": "out (exit code 8)\n\nout",
        "kill -9 $$": "3 times: killed by signal 9 (SIGKILL): often the machine ran out of memory",
        "printf 'y\n\"text\"\n' > $EMS_RESULTS_DIR/a.csv": "Column 'y' was int64 so far and is a str: 'text' here.",
        "printf 'y,z\n1\n' > $EMS_RESULTS_DIR/a.csv": "a.csv:2: 1 fields, where the header has 2",
        "printf 'X\n1\n' > $EMS_RESULTS_DIR/a.csv": "Column 'X' of the result is named like a parameter, and is 1",
        "true": "",
    }
    programs = shell(bench, *scripts, point_timeout_s=3)
    failed = [point for point, said in enumerate(scripts.values()) if said]
    assert programs.run() == (State.FAILED, len(scripts) - len(failed), len(failed)), programs.log()
    errors = programs.errors()
    assert sorted(errors) == failed
    for point, said in enumerate(scripts.values()):
        assert said in errors.get(point, ""), errors[point]
    assert bench.values()["y"] == [1, 2, 3]
    assert family(programs.run_dir) == []


def test_what_daemonises_ends_with_its_point(bench: Bench) -> None:
    daemon = "setsid bash -c 'echo $$ >> ../../../daemons; exec sleep 1000' </dev/null >/dev/null 2>&1 &\n"
    wait = "until [ $(wc -l < ../../../daemons) -ge {} ]; do sleep 0.01; done"
    programs = shell(bench, *(daemon + wait.format(point) for point in (1, 2, 3)))
    (programs.run_dir / "daemons").touch()
    assert programs.run() == (State.SUCCEEDED, 3, 0), programs.log()
    pids = [int(line) for line in (programs.run_dir / "daemons").read_text().split()]
    assert len(pids) == 3 and not any(map(alive, pids))


def test_memory_is_that_of_all_that_a_program_starts(bench: Bench) -> None:
    hog = f"{sys.executable} -c 'import time; waste = b\"x\" * 120_000_000; time.sleep(60)'"
    programs = shell(bench, f"{hog} & {hog} & wait", "true", memory_mb=200)
    assert programs.run() == (State.FAILED, 1, 1), programs.log()
    assert programs.errors()[0].startswith("3 times: it took more than memory_mb: 200")


def test_a_program_that_is_not_there_ends_the_run_and_one_of_many_fails_its_points(bench: Bench) -> None:
    programs = Programs(bench, ["./nothing"], points=1000)
    assert programs.run() == (State.FAILED, 0, 0)
    assert "'./nothing' could not be started: No such file or directory" in bench.row().error


def test_one_of_several_programs_that_is_not_there_fails_its_points(bench: Bench) -> None:
    programs = Programs(bench, ["{x}"], sweep={"x": ["true", "no-such"]}, points=2)
    assert programs.run() == (State.FAILED, 1, 1)
    assert programs.errors()[1] == "'no-such' could not be started: No such file or directory"


def test_max_failures_stops_and_variables_have_quotes_and_lines(bench: Bench) -> None:
    env = {"LABEL": 'it\'s "{x}"\n{{}} $HOME'}
    script = 'import os, sys; print(os.environ["LABEL"], file=sys.stderr); sys.exit(1)'
    programs = Programs(bench, ["python", "-c", script.replace("{", "{{")], env=env, points=100, max_failures=2)
    state, _, failed = programs.run()
    assert state is State.FAILED and 3 <= failed < 100
    assert programs.errors()[0].endswith('it\'s "0"\n{} $HOME')


WAITS = """
import os, pathlib, sys, time, subprocess
run_dir = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parents[2]
x = int(sys.argv[1])
with open(run_dir / "calls", "a") as calls:
    calls.write(f"{x}\\n")
if x >= 10 and (run_dir / "wait").exists():
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    with open(run_dir / "pids", "a") as pids:
        pids.write(f"{os.getpid()}\\n{child.pid}\\n")
    child.wait()
with open(os.environ["EMS_RESULTS_DIR"] + "/rows.csv", "w") as file:
    file.write(f"y\\n{x / 7!r}\\n")
"""


def _pids(programs: Programs) -> list[int]:
    file = programs.run_dir / "pids"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.mark.parametrize("victim", ["agent", "programs.driver", "programs.worker", "keeper", "program"])
def test_whoever_is_killed_twice_nothing_runs_on_and_each_point_is_there_once(bench: Bench, victim: str) -> None:
    programs = Programs(bench, ["python", "job.py", "{x}"], WAITS)
    (programs.run_dir / "wait").touch()
    agent = bench.start(programs.run_dir)
    for round_ in (1, 2):
        eventually(lambda round_=round_: len(_pids(programs)) >= 2 * round_)
        kill(programs, victim, agent, _pids(programs)[-2])
        if victim in {"agent", "programs.driver", "keeper"}:
            assert agent.wait(PATIENCE_S) is not None
            eventually(lambda: not any(map(alive, _pids(programs))))
            if victim != "agent":
                bench.database.reopen("e1")
            agent = bench.start(programs.run_dir)
    if victim not in {"agent", "programs.driver", "keeper"}:
        (programs.run_dir / "wait").unlink()
    else:
        eventually(lambda: len(_pids(programs)) >= 6)
        (programs.run_dir / "wait").unlink()
        os.kill(_pids(programs)[-2], signal.SIGKILL)  # it is tried again
    assert agent.wait(PATIENCE_S) == 0
    row = bench.row()
    assert (row.state, row.points_done, row.points_failed) == (State.SUCCEEDED, 20, 0), programs.log()
    assert bench.values()["y"] == [x / 7 for x in range(20)]
    assert all(programs.calls().count(x) == 1 for x in range(10) if victim == "program")
    assert not any(map(alive, _pids(programs)))


ADOPTING = """
import os, subprocess, sys, psutil
from ems.node.job import strays
from ems.node.programs import orphans
strays.adopt()
script = "setsid sleep 1000 >/dev/null 2>&1 & echo $!"
pid = int(subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout)
assert psutil.Process(pid).ppid() == os.getpid() or sys.platform != "linux"
orphans.end_others(())
print(pid)
"""


def test_orphans_of_a_worker_are_found_where_the_system_can_tell() -> None:
    """In a process of its own: it becomes the parent of all orphans below it."""
    done = subprocess.run([sys.executable, "-c", ADOPTING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not alive(int(done.stdout))


@pytest.mark.drill
def test_ten_thousand_cheap_points_each_come_once(bench: Bench) -> None:
    programs = Programs(bench, ["bash", "-c", "echo y > {results}/a.csv; echo {x} >> {results}/a.csv"], points=10_000)
    assert programs.run() == (State.SUCCEEDED, 10_000, 0)
    assert bench.values()["y"] == list(range(10_000))
