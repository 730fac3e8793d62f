"""Running `ems` in tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from ems.cli import app as cli

PROGRAM = (sys.executable, "-m", "ems.cli")


def run(*words: str, expect: int = 0, stdin: str | None = None):
    done = CliRunner().invoke(cli.app, list(words), input=stdin, prog_name="ems")
    assert done.exit_code == expect, (done.exit_code, done.output, done.exception)
    return done


def execute(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }
