"""What a job does before anything else: have its environments on its node.

    python3 -I -c BOOT RUN_DIR head MODULE    goes on as `python -m MODULE RUN_DIR ENVIRONMENT`, in EMS's environment
    python3 -I -c BOOT RUN_DIR FOLDER…        has there what the head has there: environments, EMS's own code

In RUN_DIR are `environments.json` (Order) and the zip of EMS's own code.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError, refused
from ems.node.environments import scratch
from ems.node.environments.recipe import Order

BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ems.node.environments.ready import main; main()"
ORDER, CODE = "environments.json", "ems.zip"
FAILED = "environment.failed"  # why, in the run's folder: it does not help to submit the job again
HIDDEN = ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONSTARTUP")


def main() -> None:
    """Exit code 3 without an environment: of a head, RUN_DIR then has the reason."""
    run_dir, *words = Path(sys.argv[1]), *sys.argv[2:]
    is_head = words[0] == "head"
    try:
        order = Order.read(run_dir / ORDER)
        if is_head:
            _become(order, run_dir, words[1])
        for folder in map(Path, words):
            _have(order, folder)
    except (EmsError, OSError) as error:
        said = refused(error) if isinstance(error, OSError) else error
        _log("ERROR", str(said))
        if is_head:  # of a node that workers have come to, others may know more
            aside.write(run_dir / FAILED, str(said))
        sys.exit(3)


def _become(order: Order, run_dir: Path, module: str) -> None:
    environment = scratch.unpacked(order.experiment, order, _say)
    python = scratch.unpacked(order.agents, order, _say) / "bin/python"
    code = scratch.code(Path(order.code), environment.parent, python)
    variables = {name: text for name, text in os.environ.items() if name not in HIDDEN}
    variables |= {"PYTHONPATH": str(code), "PYTHONNOUSERSITE": "1"}
    os.execve(python, [str(python), "-m", module, str(run_dir), str(environment)], variables)


def _have(order: Order, folder: Path) -> None:
    if folder.name.startswith(scratch.CODE):
        agents = next(folder.parent.glob(f"{order.agents.digest}*/bin/python"), Path(sys.executable))
        scratch.code(Path(order.code), folder.parent, agents)
        return
    recipe = order.agents if folder.name.startswith(order.agents.digest) else order.experiment
    scratch.unpacked(recipe, order, _say, folder)


def _say(step: str) -> None:
    _log("INFO", step)


def _log(level: str, text: str) -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    print(f"{now},000Z {level} ems.environments: {text}", file=sys.stderr, flush=True)  # noqa: T201
