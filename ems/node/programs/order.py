"""What the driver of a command's sweep is told: an order as of a function's, and the program."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ems.node.driver.points import Order
from ems.spool.batch import Value


@dataclass(frozen=True, kw_only=True)
class ProgramOrder(Order):
    """`code`: the folder that working folders are copies of; `function` is empty."""

    command: list[str]  # with placeholders, as all values of `env`
    env: dict[str, str]
    variables: dict[str, str]  # all others that the program sees, but for those of its point and its machine
    parameters: dict[str, Value | list[Value]]  # beside the grid
    protocol: str  # process or lines
    folder: str  # in which workers have theirs
    checkpoints: str  # in which points have theirs; "": they have none
    left: str  # folder to which files go that no rows were read from
    python: str  # of the experiment's environment, which runs what proposes rounds
    source: str  # where that finds EMS's modules: ems.zip of the bundle
    of_machine: list[str] = field(default_factory=list)  # variables that each worker's machine has its own of
    results: dict[str, Any] | str = field(default_factory=dict)  # of the stack file


def read(file: str) -> ProgramOrder:
    """The order in a JSON file."""
    return ProgramOrder(**json.loads(Path(file).read_text(encoding="utf-8")) | {"file": file})
