"""`python -m ems.node RUN_DIR`: an agent's process. It logs to standard error."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ems.base.errors import EmsError, UserError, refused
from ems.node.agent.agent import Agent


def main(arguments: list[str], agent: Callable[[Path], Agent] = Agent) -> int:
    """Run an agent in the one folder that `arguments` names; returns the exit code, also of an EmsError."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(level=logging.INFO, format="%(asctime)sZ %(levelname)s %(name)s: %(message)s")
    try:
        if len(arguments) != 1:
            raise UserError(f"python -m ems.node takes one run folder, not {arguments}.")
        return agent(Path(arguments[0])).run()
    except EmsError as error:
        logging.error("%s", error)
        return error.exit_code
    except OSError as error:
        logging.error("%s", refused(error), exc_info=True)
        return EmsError.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
