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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.end_to_end.conftest import User

pytestmark = pytest.mark.trial
PAGE = Path(__file__).parents[2] / "docs/checkpoints.md"


def shown(language: str) -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return str(code)


def describe(user: User, pause_s: float = 0.0, **parameters: int) -> None:
    """The stack `steps` as the manual shows it, with less to do, and a pause in each step."""
    described = yaml.safe_load(shown("yaml"))
    described["config"]["ems:experiment"]["job"]["parameters"] |= parameters
    user.write("stacks/Pulumi.steps.yaml", json.dumps(described))
    pausing = f"        __import__('time').sleep({pause_s})\n        part = "
    user.write("experiments/pi/steps.py", shown("python").replace("        part = ", pausing))
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
    try:
        return sum(path.stat().st_size for path in (user.root / ".ems/runs").glob("*/checkpoint*/state.pickle"))
    except FileNotFoundError:  # it is renamed just now
        return 0


class Watched:
    """`ems up steps`, said again whenever it has ended before the run has succeeded."""

    def __init__(self, user: User) -> None:
        self.user, self.command = user, user.start("up", "steps")

    def goes_on(self) -> bool:
        """Whether there is still something to do."""
        if self.command.poll() is None:
            return True
        if self.user.state("steps") == "succeeded":
            return False
        retry = ["--retry"] if self.user.state("steps") in {"failed", "cancelled"} else []
        self.command = self.user.start("up", "steps", *retry)
        return True

    def wait(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives, once that is something; it must come before the run ends."""

        def found() -> Any:
            assert self.goes_on(), "the run has ended before"
            return condition()

        return self.user.wait(found)


def everything(user: User) -> list[psutil.Process]:
    return user.processes()


def agent(user: User) -> list[psutil.Process]:
    return user.processes("-m ems.node ")


def program(user: User) -> list[psutil.Process]:
    return user.processes("steps.py")


def killed(user: User, tmp_path: Path, victims: list[Callable[[User], Any]], **parameters: int) -> None:
    watched, size = Watched(user), 0
    for victim in victims:
        size = watched.wait(lambda size=size: now if (now := saved(user)) > size else 0)
        for process in watched.wait(lambda victim=victim: victim(user)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
    user.wait(lambda: not watched.goes_on())
    rows = user.query("SELECT step, pi FROM steps ORDER BY point, row")
    assert rows == undisturbed(tmp_path / "alone", **parameters)
    ((attempts,),) = user.query("SELECT attempt FROM experiment WHERE stack = 'steps'")
    assert 1 < attempts <= len(victims) + 1, "of an agent that was killed, the job may save once more before it ends"
    assert list((user.root / ".ems/runs").glob("*/checkpoint*")) == []


def test_a_program_that_is_killed_twice_has_the_rows_of_an_undisturbed_run(user: User, tmp_path: Path) -> None:
    parameters = {"seed": 1, "steps": 40, "points": 100}
    describe(user, pause_s=0.2, **parameters)
    killed(user, tmp_path, [agent, everything], **parameters)


@pytest.mark.drill
def test_a_program_that_is_killed_ten_times_at_random_has_the_rows_of_an_undisturbed_run(
    user: User, tmp_path: Path
) -> None:
    chosen = random.Random(os.environ.get("EMS_DRILL_SEED", "1"))
    parameters = {"seed": 2, "steps": 600, "points": 100}
    describe(user, pause_s=0.1, **parameters)

    def later(victim: Callable[[User], Any]) -> Callable[[User], Any]:
        due = chosen.uniform(0, 3)

        def found(user: User) -> Any:
            time.sleep(due)
            return victim(user)

        return found

    victims = [later(victim) for victim in chosen.choices([agent, program, everything], k=10)]
    killed(user, tmp_path, victims, **parameters)


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
