"""Captures of the commands as they are drawn on terminals: for eyes, after a change of what is drawn.

python -m scripts.captures [FILE]

Makes a lab in a folder of its own, runs each command in tmux at several widths, resized in the middle, without colours,
on a dumb terminal, in ASCII and in a pipe, and writes the screens one below the other to FILE (default:
tests/records/terminal.txt). Takes two minutes. Needs tmux.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from ems.base.console import say
from ems.cli import scaffold

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "tests" / "records" / "terminal.txt"
WIDTHS = (60, 80, 120)
ROWS = 24
LIMIT_S = 120.0
SERVER = f"captures-{os.getpid()}"
PERSON = ("-c", "user.name=EMS", "-c", "user.email=ems@localhost")
SWEEP = """config:
  ems:experiment:
    title: Orders of points
    project: first
    experimenter: me
    funding: unfunded
    code: {{paths: [experiments]}}
    environment: svd
    job:
      function: experiments.walk:distance
      sweep: {{x: {{count: {points}}}, label: [a, b]}}
    results: {{table: {table}}}
    cluster: {{kind: laptop}}
    limits: {{max_hours: 1}}
"""
FUNCTION = """import time

def distance(x, label):
    time.sleep(0.05)
    if label == "b" and x % 7 == 3:
        raise ValueError(f"no good: {x}")
    return {"distance": x / 3}
"""


def tmux(*words: str) -> str:
    """What a server of our own answers."""
    done = subprocess.run(["tmux", "-L", SERVER, *words], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass
class Terminal:
    """A command in tmux."""

    command: str
    lab: Path
    columns: int = 80
    variables: Mapping[str, str] = field(default_factory=dict)
    number: int = field(default_factory=count().__next__)

    def __enter__(self) -> Terminal:
        bin = Path(sys.executable).parent
        variables = {"PATH": f"{bin}:{os.environ['PATH']}", **self.variables}
        words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        line = f"env {' '.join(words)} sh -c {shlex.quote(self.command)}; echo; echo '--- end'; sleep 600"
        size = ["-x", str(self.columns), "-y", str(ROWS)]
        tmux("new-session", "-d", "-s", self.name, *size, "-c", str(self.lab), line)
        return self

    def __exit__(self, *_: object) -> None:
        tmux("kill-session", "-t", self.name)

    @property
    def name(self) -> str:
        """Of the session."""
        return f"terminal-{self.number}"

    def screen(self) -> str:
        """What is drawn now, without empty lines at the end."""
        return tmux("capture-pane", "-p", "-t", self.name).rstrip().removesuffix("--- end").rstrip() + "\n"

    def resize(self, columns: int) -> None:
        """Wait until it is drawn anew."""
        tmux("resize-window", "-t", self.name, "-x", str(columns), "-y", str(ROWS))
        time.sleep(2)

    def until(self, seen: Callable[[str], bool]) -> str:
        """The screen of which this is so; TimeoutError after two minutes."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            screen = tmux("capture-pane", "-p", "-t", self.name)
            if seen(screen):
                return self.screen()
            time.sleep(0.2)
        raise TimeoutError(f"{self.command}: {screen}")

    def end(self) -> str:
        """The screen after the command."""
        return self.until(lambda screen: "--- end" in screen)


def make_lab(root: Path) -> None:
    """A lab with a sweep `walk`, of which some points fail, a copy of it, and the new experiment `pi`."""
    scaffold.init(root)
    (root / "experiments" / "walk.py").write_text(FUNCTION)
    shutil.copytree(ROOT / "environments" / "svd", root / "environments" / "svd")
    for stack, points in (("walk", 200), ("short", 15), ("a-sweep-with-a-long-name", 16), ("wide", 300)):
        table = stack.replace("-", "_")
        (root / f"stacks/Pulumi.{stack}.yaml").write_text(SWEEP.format(points=points, table=table) + scaffold.SALT)
    subprocess.run(["git", "-C", root, "add", "-A"], check=True)
    subprocess.run(["git", "-C", root, *PERSON, "commit", "-qm", "Sweeps"], check=True)


def is_half_way(screen: str) -> bool:
    """Whether a bar is drawn and has begun."""
    return "━" in screen and " 0 %" not in screen and "%" in screen


def captures(lab: Path) -> Iterator[tuple[str, str]]:
    """Titles and screens."""

    def ended(command: str, columns: int = 80, **variables: str) -> tuple[str, str]:
        with Terminal(command, lab, columns, variables) as terminal:
            said = "".join(f"{name}={value} " for name, value in variables.items())
            return f"{said}{command}, {columns} columns", terminal.end()

    yield ended("ems up pi")
    with Terminal("ems up walk", lab) as terminal:
        yield "ems up walk, 80 columns, under way", terminal.until(is_half_way)
        for columns in (40, 120):
            terminal.resize(columns)
            yield f"the same, resized to {columns} columns", terminal.screen()
        for columns in WIDTHS:
            with Terminal("ems watch walk", lab, columns) as watching:
                yield f"ems watch walk, {columns} columns, meanwhile", watching.until(is_half_way)
                if columns == WIDTHS[0]:
                    watching.resize(100)
                    yield "the same, resized to 100 columns", watching.screen()
        yield ended("ems status walk")
        yield "ems up walk, at its end", terminal.end()
    yield ended("ems up short | cat")
    yield ended("ems up a-sweep-with-a-long-name", 60, NO_COLOR="1")
    yield ended("ems up wide", 80, TERM="dumb")
    yield ended("ems up", 80)
    for command in ("ems status", "ems failures walk", "ems results walk", "ems teardown --all --dry-run"):
        for columns in WIDTHS:
            yield ended(command, columns)
    yield ended("ems status", 80, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    yield ended("ems status | cat", 60)


def main(file: Path) -> None:
    """Write all captures to `file`."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Path(folder, "mylab")
        make_lab(lab)
        parts = []
        tmux("start-server", ";", "set-option", "-g", "exit-empty", "off")  # it stays between two sessions
        try:
            for title, screen in captures(lab):
                say(title)
                parts.append(f"=== {title}\n\n{screen}\n")
        finally:
            tmux("kill-server")
    file.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RECORD)
