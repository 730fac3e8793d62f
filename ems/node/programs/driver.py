"""The driver of a command's sweep: as that of a function's, in EMS's own Python; without Dask where no workers join.

    python -c "import sys; sys.path[0] = SOURCE; from ems.node.programs.driver import main; main(ORDER)"

ORDER is a JSON file, whose keys are the fields of `ems.node.programs.order.ProgramOrder`. Exit codes are those of
`ems.node.driver.driver`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ems.base import aside
from ems.base.errors import EmsError
from ems.node.driver import driver
from ems.node.driver.driver import Driver, Part
from ems.node.driver.proposer import Surroundings
from ems.node.job.keeper import MARKER
from ems.node.programs import order as orders
from ems.node.programs.order import ProgramOrder
from ems.node.programs.pool import Pool

if TYPE_CHECKING:
    from ems.node.driver.joining import JoiningWorkers


def main(order_file: str) -> NoReturn:
    """Carry out the order in `order_file`, and exit with the driver's code."""
    driver.main(order_file, _drive)


def _drive(order_file: str, stopping: threading.Event) -> int:
    order = orders.read(order_file)
    workers = (
        _joining(order, order_file) if order.joining else Pool[Part](order.workers, order_file, Path(order.folder))
    )
    try:
        return Driver(order, workers, stopping, _proposers(order)).run()
    finally:
        workers.close()
        aside.remove(Path(order.folder))


def _joining(order: ProgramOrder, order_file: str) -> JoiningWorkers[Part]:
    try:
        from ems.node.programs.joining import joining_workers
    except ImportError as error:
        message = f"That workers join from other machines takes dask.distributed: {error}."
        raise EmsError(message, "Install it: pip install 'ems-experiments[slurm]'") from error
    return joining_workers(order, order_file)


def _proposers(order: ProgramOrder) -> Surroundings:
    """The experiment's environment, and the variables that its programs have."""
    marked = {MARKER: os.environ[MARKER]} if MARKER in os.environ else {}
    return Surroundings(order.python, order.source, {**order.variables, **marked})
