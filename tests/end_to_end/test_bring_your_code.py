"""The page "Bring your code": what it shows is written, run and compared, start by start."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from ems.base.process import uv
from tests.documentation import FENCED, ROOT
from tests.end_to_end.conftest import User

PAGE = (ROOT / "docs/bring-your-code.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def follow(user: User, text: str) -> str:
    """Write the files of a section, type its commands, take its stack file; returns what the last one printed."""
    for language, block in FENCED.findall(text):
        if language in {"python", "toml", "r"}:
            user.write(block.splitlines()[0].removeprefix("# "), block)
    if (user.root / "pyproject.toml").exists():
        uv("lock", "--quiet", cwd=user.root)
    printed = ""
    for command in re.findall(r"^    ((?:ems|git|echo) .*)$", text, re.MULTILINE):
        if command.startswith("ems"):
            printed = user.ems(*shlex.split(command)[1:]).stdout
        elif command.startswith("git add -A && git commit"):
            edit(user, text)
            user.commit("A lab")
        else:
            subprocess.run(command, shell=True, cwd=user.root, check=True)
    return printed


def edit(user: User, text: str) -> None:
    """The one file that is edited: it is shown, or a line of it."""
    ((_, stack),) = [found for found in FENCED.findall(text) if found[0] == "yaml"]
    file = user.root / "stacks/Pulumi.fit.yaml"
    file.write_text(stack if stack.startswith("config") else re.sub(r" +environment: .*\n", stack, file.read_text()))


@pytest.mark.parametrize("heading", ["A script", "An existing repository", "A function", "An R script"])
def test_a_start_gives_the_rows_that_are_shown(heading: str, tmp_path: Path) -> None:
    (tmp_path / "code/.ems").mkdir(parents=True)
    user = User(tmp_path / "code")
    subprocess.run(["git", "init", "-q", "-b", "main", str(user.root)], check=True)
    text = section(heading)
    shown = re.findall(r"^    (point,.*|\d+,.*)$", text, re.MULTILINE)
    assert follow(user, text).splitlines() == shown
    user.end()
