from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ems.base.errors import EmsError
from ems.node import host
from ems.node.agent import lock
from ems.node.job import keeper
from ems.node.job.keeper import MARKER, Ended, Job, kill_leftovers
from ems.node.job.log import HEAD_BYTES, LEFT_OUT, TAIL_BYTES
from ems.node.job.variables import job_environment
from tests.processes import PATIENCE_S, alive, eventually

# A job with a child in its group and one that left it; each writes its number, none heeds SIGTERM.
STUBBORN = """
import os, pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
code = "import time; time.sleep(600)"
children = [subprocess.Popen([sys.executable, "-c", code], start_new_session=away).pid for away in (False, True)]
target = pathlib.Path(os.environ["EMS_RESULTS_DIR"], "pids")
target.with_suffix(".tmp").write_text(" ".join(map(str, [os.getpid(), *children])))
target.with_suffix(".tmp").rename(target)
time.sleep(600)
"""

AGENT = """
import sys, time
from pathlib import Path
from ems.node.job.keeper import Job
run_dir = Path(sys.argv[1])
Job([sys.executable, "-c", sys.argv[2]], run_dir, {"EMS_RESULTS_DIR": str(run_dir)}, run_dir, 0.3)
time.sleep(600)
"""


def start(run_dir: Path, *command: str, grace_s: float = 0.3, **variables: str) -> Job:
    return Job(command, run_dir, {"EMS_RESULTS_DIR": str(run_dir), **variables}, run_dir, grace_s)


def finish(job: Job) -> Ended:
    ended = job.wait(PATIENCE_S)
    assert ended
    return ended


def pids(run_dir: Path) -> list[int]:
    eventually((run_dir / "pids").exists)
    return [int(pid) for pid in (run_dir / "pids").read_text().split()]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("exit 0", "exit code 0"),
        ("exit 3", "exit code 3"),
        ("kill -TERM $$", "killed by signal 15 (SIGTERM)"),
        ("kill -KILL $$", "killed by signal 9 (SIGKILL): often the machine ran out of memory"),
        ("sh -c 'kill -KILL $$'; exit $?", "exit code 137: a program in it was killed by signal 9 (SIGKILL)"),
        ("exit 255", "exit code 255"),
    ],
)
def test_how_a_command_ended_is_said(tmp_path: Path, command: str, expected: str) -> None:
    assert str(finish(start(tmp_path, "/bin/sh", "-c", command))).startswith(expected)


def test_a_missing_command_is_named(tmp_path: Path) -> None:
    ended = finish(start(tmp_path, "no-such-program", PATH="/usr/bin:/bin"))
    assert ended.code == 127
    assert str(ended) == "'no-such-program' could not be started: No such file or directory"


def test_both_streams_are_appended_to_the_log_and_the_input_is_empty(tmp_path: Path) -> None:
    (tmp_path / "job.log").write_text("before\n")
    finish(start(tmp_path, "/bin/sh", "-c", "cat; echo out; echo err >&2"))
    assert (tmp_path / "job.log").read_text() == "before\nout\nerr\n"


def test_signals_are_at_their_defaults_whatever_the_shell_ignored(tmp_path: Path) -> None:
    numbers = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        job = start(tmp_path, "sh", "-c", "grep SigIgn /proc/self/status || echo 'SigIgn: 0'")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert str(finish(job)) == "exit code 0"
    ignored = int((tmp_path / "job.log").read_text().split()[-1], 16)
    assert [number for number in numbers if ignored >> (number - 1) & 1] == []


def test_the_first_word_is_looked_up_in_the_jobs_path(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "python"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho mine\n")
    tool.chmod(0o755)
    finish(start(tmp_path, "python", PATH=f"{tool.parent}:/usr/bin:/bin"))
    assert (tmp_path / "job.log").read_text() == "mine\n"


def test_a_command_may_clean_up_when_it_is_stopped(tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    job = start(tmp_path, "/bin/sh", "-c", script, grace_s=PATIENCE_S)
    eventually(lambda: "ready" in (tmp_path / "job.log").read_text() if (tmp_path / "job.log").exists() else False)
    assert job.stop() == Ended(7)
    assert (tmp_path / "job.log").read_text().endswith("bye\n")


def test_of_a_flood_the_log_has_both_ends_and_the_keeper_stays_small(tmp_path: Path) -> None:
    flood = (
        "echo first; echo $$ > pids.tmp; mv pids.tmp pids; yes 'some words' | head -c 200000000; echo; echo last >&2"
    )
    job = start(tmp_path, "/bin/sh", "-c", flood)
    keeper = psutil.Process(pids(tmp_path)[0]).parent()
    assert keeper
    peak = 0
    while job.wait(0.05) is None:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            peak = max(peak, keeper.memory_info().rss)
    content = (tmp_path / "job.log").read_bytes()
    assert content.startswith(b"first\nsome words\n") and content.endswith(b"\nlast\n")
    assert len(content) < HEAD_BYTES + 2 * TAIL_BYTES + 1000
    assert len(LEFT_OUT.findall(content)) == 1
    assert peak < 100e6


def test_a_stubborn_job_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    job = start(tmp_path, sys.executable, "-c", STUBBORN)
    family = pids(tmp_path)
    assert job.wait(0.05) is None
    assert job.stop() == Ended(-signal.SIGKILL)
    assert [pid for pid in family if alive(pid)] == []


@pytest.mark.parametrize(
    "left", ["sleep 600", *(["setsid sleep 600", "env -i setsid sleep 600"] if sys.platform == "linux" else [])]
)
def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path, left: str) -> None:
    finish(start(tmp_path, "/bin/sh", "-c", f"{left} & echo $! > pids; sleep 0.2"))
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []


def test_a_killed_agent_takes_its_job_along(tmp_path: Path) -> None:
    agent = subprocess.Popen([sys.executable, "-c", AGENT, tmp_path, STUBBORN])
    family = pids(tmp_path)
    agent.kill()
    agent.wait()
    eventually(lambda: not any(map(alive, family)))


def test_a_killed_keeper_takes_its_job_along(tmp_path: Path) -> None:
    job = start(tmp_path, sys.executable, "-c", STUBBORN)
    family = pids(tmp_path)
    psutil.Process(family[0]).parent().kill()
    assert finish(job) == Ended(-signal.SIGKILL)
    assert [pid for pid in family if alive(pid)] == []


def test_leftovers_of_a_killed_agent_and_keeper_are_found(tmp_path: Path) -> None:
    agent = subprocess.Popen([sys.executable, "-c", AGENT, tmp_path, STUBBORN])
    family = pids(tmp_path)
    keeper = psutil.Process(family[0]).parent()
    os.kill(agent.pid, signal.SIGSTOP)
    keeper.kill()
    agent.kill()
    agent.wait()
    assert all(map(alive, family))
    kill_leftovers(tmp_path)
    assert [pid for pid in family if alive(pid)] == []


@pytest.mark.parametrize("dismiss", [host.dismiss, lock.dismiss])
def test_of_a_run_that_is_over_nothing_is_left_where_agent_and_keeper_were_killed(
    tmp_path: Path, dismiss: Callable[[Path], object]
) -> None:
    agent = subprocess.Popen([sys.executable, "-c", AGENT, tmp_path, STUBBORN])
    family = pids(tmp_path)
    with (tmp_path / "agent.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        keeper.end_leftovers(tmp_path)
        assert all(map(alive, family))
        os.kill(agent.pid, signal.SIGSTOP)
        psutil.Process(family[0]).parent().kill()
        agent.kill()
        agent.wait()
    assert all(map(alive, family))
    dismiss(tmp_path)
    assert [pid for pid in family if alive(pid)] == []


def test_a_group_is_not_killed_by_an_old_number(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], process_group=0) as bystander:
        (tmp_path / "job.lock").write_text(str(bystander.pid))
        kill_leftovers(tmp_path)
        assert bystander.poll() is None
        bystander.kill()


def test_variables_of_a_job_that_a_shell_has_taken_over_make_nobody_its_process(tmp_path: Path) -> None:
    """Somebody sets a job's variables in a shell, to look into it, and goes on with EMS from there."""
    finish(start(tmp_path, "true"))
    token = (tmp_path / "job.token").read_text()
    told = {**os.environ, "EMS_RESULTS_DIR": str(tmp_path)}
    imports = "import sys; from pathlib import Path; from ems.node.job.keeper import kill_leftovers"
    kill = f"{sys.executable} -c '{imports}; kill_leftovers(Path(sys.argv[1]))'"
    with subprocess.Popen(["sleep", "600"], env=told) as bystander:
        ancestor = subprocess.run(["sh", "-c", f"{kill} {tmp_path} && echo went on"], env={**told, MARKER: token},
                                  check=False, capture_output=True, text=True)  # fmt: skip
        assert (bystander.poll(), ancestor.stdout) == (None, "went on\n")
        bystander.kill()


def test_each_job_has_a_token_of_its_own(tmp_path: Path) -> None:
    job = start(tmp_path, "sh", "-c", f"echo ${MARKER} >> tokens; exit 0")
    finish(job)
    finish(start(tmp_path, "sh", "-c", f"echo ${MARKER} >> tokens; exit 0"))
    first, second = (tmp_path / "tokens").read_text().split()
    assert first != second == (tmp_path / "job.token").read_text()


@pytest.mark.parametrize("content", ["", "foreign", "-1", "1", "\udcff"])
def test_a_damaged_lock_or_token_kills_nobody(tmp_path: Path, content: str) -> None:
    for name in ("job.lock", "job.token"):
        (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with (tmp_path / "job.lock").open() as held, pytest.raises(EmsError, match="do not end"):
        fcntl.flock(held, fcntl.LOCK_EX)
        kill_leftovers(tmp_path, timeout_s=0.1)
    kill_leftovers(tmp_path)


def test_the_environment_of_a_job_is_built_from_scratch(tmp_path: Path) -> None:
    caller = {
        "HOME": "/home/researcher",
        "LC_ALL": "C.UTF-8",
        "PATH": "/caller/bin",
        "PYTHONPATH": "/caller/lib",
        "VIRTUAL_ENV": "/caller/venv",
        "CONDA_PREFIX": "/caller/conda",
        "R_LIBS_USER": "/caller/R",
        "LD_PRELOAD": "x.so",
        "SECRET_TOKEN": "x",
    }
    ems = {"EMS_RESULTS_DIR": "/results"}
    own = {"MODE": "fast", "EMS_RESULTS_DIR": "/elsewhere", "PYTHONHASHSEED": "7"}
    variables = job_environment(tmp_path, caller, 4, ems, own)
    assert not [
        name for name, value in variables.items() if "caller" in value or name in ("LD_PRELOAD", "SECRET_TOKEN")
    ]
    assert variables["PATH"].startswith(f"{tmp_path}/bin:")
    assert variables["PATH"].endswith("/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    assert variables["OMP_NUM_THREADS"] == variables["BLIS_NUM_THREADS"] == "4"
    assert (variables["MODE"], variables["EMS_RESULTS_DIR"], variables["PYTHONHASHSEED"]) == ("fast", "/results", "7")
    assert (variables["HOME"], variables["LC_ALL"], variables["PYTHONNOUSERSITE"]) == (
        "/home/researcher",
        "C.UTF-8",
        "1",
    )


def test_a_job_sees_nothing_but_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "leak"))
    monkeypatch.setenv("EMS_TEST_LEAK", "1")
    variables = job_environment(Path(sys.prefix), os.environ, 1, {"EMS_RESULTS_DIR": str(tmp_path)}, {})
    script = "import json, os, sys; print(json.dumps([sys.path, dict(os.environ), sys.flags.no_user_site]))"
    finish(Job(["python", "-c", script], tmp_path, variables, tmp_path, 1.0))
    path, seen, no_user_site = json.loads((tmp_path / "job.log").read_text())
    assert str(tmp_path / "leak") not in path
    assert set(seen) - {"LC_CTYPE", MARKER} == set(variables) - {"LC_CTYPE"}
    assert no_user_site == 1
