"""This machine, where `ems runner` works at a place: asked as others are by SSH."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from tempfile import TemporaryFile

from ems.clusters.openssh import COMMAND_S, TOO_SLOW, Answer


class Here:
    """This machine."""

    name = platform.node()

    def run(
        self,
        script: str,
        payload: bytes | Path = b"",
        *,
        timeout_s: float = COMMAND_S,
        repeats: bool = False,  # noqa: ARG002
    ) -> Answer:
        """As `openssh.Host.run`."""
        with payload.open("rb") if isinstance(payload, Path) else TemporaryFile() as given:
            if isinstance(payload, bytes):
                given.write(payload)
                given.seek(0)
            command = ["/bin/sh", "-c", script]
            try:
                done = subprocess.run(
                    command, cwd=Path.home(), stdin=given, capture_output=True, timeout=timeout_s, check=False
                )
            except subprocess.TimeoutExpired as error:
                return Answer(TOO_SLOW, error.stdout or b"", "no end in time")
        return Answer(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
