"""The manual's program that goes on from a checkpoint, through the command line, killed again and again."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.end_to_end.conftest import User

PAGE = Path(__file__).parents[2] / "docs/checkpoints.md"


def shown(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(code)


def describe(user: User, **parameters: int) -> None:
    """The stack `steps` as the manual shows it, with less to do."""
    described = yaml.safe_load(shown("yaml"))
    described["config"]["ems:experiment"]["job"]["parameters"] |= parameters
    user.write("stacks/Pulumi.steps.yaml", json.dumps(described))
    user.write("experiments/pi/steps.py", shown("python"))
    user.commit("Steps")


def undisturbed(folder: Path, **parameters: int) -> list[tuple[int, float]]:
    """The rows of the program, run alone."""
    for name in ("results", "checkpoint"):
        (folder / name).mkdir(parents=True)
    (folder / "parameters.json").write_text(json.dumps(parameters))
    given = {"PARAMETERS": "parameters.json", "RESULTS_DIR": "results", "CHECKPOINT_DIR": "checkpoint"}
    variables = {f"EMS_{name}": str(folder / path) for name, path in given.items()}
    subprocess.run([sys.executable, "-c", shown("python")], env={**os.environ, **variables}, check=True)
    with (folder / "results/rows.csv").open() as file:
        return [(int(row["step"]), float(row["pi"])) for row in csv.DictReader(file)]


def saved(user: User) -> int:
    """How large the checkpoint is."""
    return sum(path.stat().st_size for path in (user.root / ".ems/runs").glob("*/checkpoint*/state.pickle"))


def saved_more(user: User, before: int) -> int:
    """Wait until the program has saved a further step."""

    def more() -> int:
        try:
            now = saved(user)
        except FileNotFoundError:
            return 0
        return now if now > before else 0

    return int(user.wait(more))


def everything(user: User) -> list[psutil.Process]:
    return user.processes()


def agent(user: User) -> list[psutil.Process]:
    return user.processes("-m ems.node /")


def program(user: User) -> list[psutil.Process]:
    return user.processes("steps.py")


def kill_and_go_on(user: User, victims: list[psutil.Process], command: subprocess.Popen[str]) -> subprocess.Popen[str]:
    """The command that watches the run then: if that of before has ended, another one."""
    for process in victims:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    time.sleep(0.2)
    if command.poll() is None and not any(process.pid == command.pid for process in victims):
        return command
    retry = ["--retry"] if user.state("steps") == "failed" else []
    return user.start("up", "steps", *retry)


def killed(user: User, tmp_path: Path, victims: list[object], **parameters: int) -> None:
    describe(user, **parameters)
    command, size = user.start("up", "steps"), 0
    for victim in victims:
        size = saved_more(user, size)
        command = kill_and_go_on(user, victim(user), command)  # type: ignore[operator]
    while (code := command.wait()) and user.state("steps") == "failed":
        command = user.start("up", "steps", "--retry")
    assert code == 0, user.said(command)
    rows = user.query("SELECT step, pi FROM steps ORDER BY point, row")
    assert rows == undisturbed(tmp_path / "alone", **parameters)
    ((attempts,),) = user.query("SELECT attempt FROM experiment WHERE stack = 'steps'")
    assert 1 < attempts <= len(victims) + 1, "of an agent that was killed, the job may save once more before it ends"
    assert list((user.root / ".ems/runs").glob("*/checkpoint*")) == []


def test_a_program_that_is_killed_twice_has_the_rows_of_an_undisturbed_run(user: User, tmp_path: Path) -> None:
    killed(user, tmp_path, [agent, everything], seed=1, steps=40, points=60_000)


@pytest.mark.drill
def test_a_program_that_is_killed_ten_times_at_random_has_the_rows_of_an_undisturbed_run(
    user: User, tmp_path: Path
) -> None:
    chosen = random.Random(os.environ.get("EMS_DRILL_SEED", "1"))
    victims = chosen.choices([agent, program, everything], k=10)

    def later(victim):
        def found(user: User) -> list[psutil.Process]:
            time.sleep(chosen.uniform(0, 3))
            return user.wait(lambda: victim(user))

        return found

    killed(user, tmp_path, [later(victim) for victim in victims], seed=2, steps=400, points=60_000)


def test_a_failed_run_says_that_it_goes_on_from_its_checkpoint_unless_that_is_cleaned(user: User) -> None:
    user.experiment(rows=2)
    user.write(
        "experiments/e/job.py",
        "import os, pathlib, sys\n"
        "starts = pathlib.Path(os.environ['EMS_CHECKPOINT_DIR'], 'starts')\n"
        "starts.write_text('x' + (starts.read_text() if starts.exists() else ''))\n"
        "sys.exit(f'start {len(starts.read_text())}')\n",
    )
    user.commit("A program that fails")
    said = user.ems("up", "e", expect=6)
    assert "start 1" in said.stderr and "go on from its checkpoint with `ems up e --retry`" in said.stderr
    assert "start 2" in user.ems("up", "e", "--retry", expect=6).stderr
    shown = user.ems("status", "e").stdout
    assert "Its checkpoint (1 file, 2 bytes) is kept: the next run goes on from it" in shown
    (left,) = json.loads(user.ems("clean", "e", "--dry-run", "--json").stdout)
    assert (left["files"][0]["name"], left["result"]) == ("EMS_CHECKPOINT_DIR/", "to be removed")
    user.ems("teardown", "e", "--yes")
    user.ems("clean", "e", "--yes")
    assert "Its checkpoint" not in user.ems("status", "e").stdout
    assert "start 1" in user.ems("up", "e", "--retry", expect=6).stderr
