"""The one way to run an outside command: it fails with the command, its exit code and both streams."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ems.base.errors import EmsError


class CommandFailed(EmsError):
    """An outside command's exit `code` was not 0: 127 if it is not found, 126 if it cannot run, 124 when too slow."""

    def __init__(self, command: Sequence[str], code: int, stdout: str, stderr: str) -> None:
        shown = "\n".join(part.rstrip() for part in (stdout, stderr) if part.strip())
        super().__init__(f"`{shlex.join(command)}` ended with exit code {code}:\n{shown}")
        self.code, self.stdout, self.stderr = code, stdout, stderr


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> str:
    """Standard output of `command`; CommandFailed unless it exits with 0."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            check=False,
            cwd=cwd,
            env=env,
            timeout=timeout_s,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise CommandFailed(words, 127, "", f"{error.filename or words[0]}: not found") from error
    except OSError as error:  # no program for this machine, or not ours to run
        raise CommandFailed(words, 126, "", f"{words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(words, 124, "", f"no end within {timeout_s} s") from error
    if done.returncode:
        raise CommandFailed(words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def uv(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run the `uv` of this environment; it trusts the certificates that the machine trusts."""
    import uv as uv_package  # which agents on other machines do without

    return run([uv_package.find_uv_bin(), *arguments], cwd=cwd, env={"UV_SYSTEM_CERTS": "true", **os.environ})
