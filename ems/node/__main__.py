"""`python -m ems.node [--when-told DATABASE] RUN_DIR [ENVIRONMENT]`: an agent's process. It logs to standard error.

ENVIRONMENT: the folder of the experiment's, where that differs from machine to machine.
--when-told: begin once there is a line on standard input; not at all where that ends without one. Meanwhile what a
database of that kind needs is loaded.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ems.base import plugins
from ems.base.errors import EmsError, UserError, refused
from ems.node import WHEN_TOLD
from ems.node.agent.agent import Agent


class Process(Protocol):
    """What runs in this process, an agent or one like it."""

    def run(self) -> int:
        """The exit code."""


def local_agent(run_dir: Path, environment: Path | None = None) -> Agent:
    """One that has no workers on other machines."""
    return Agent(run_dir, environment=environment)


def main(arguments: list[str], agent: Callable[..., Process] = local_agent) -> int:
    """Run an agent in the folder that `arguments` name; returns the exit code, also of an EmsError."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    if arguments[:1] == [WHEN_TOLD]:
        plugins.load("databases", arguments[1], "database")
        if not _is_told():
            return 0
        arguments = arguments[2:]
    try:
        if len(arguments) not in {1, 2}:
            raise UserError(f"python -m ems.node takes a run folder and maybe an environment, not {arguments}.")
        return agent(*map(Path, arguments)).run()
    except EmsError as error:
        logging.error("%s", error)
        return error.exit_code
    except OSError as error:
        logging.error("%s", refused(error), exc_info=True)
        return EmsError.exit_code


def _is_told() -> bool:
    """Waits for it; False if whoever would have told it is gone. What the agent starts has no standard input."""
    told = bool(os.read(0, 1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
