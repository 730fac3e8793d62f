"""The driver's part between two rounds: it says that all is computed, has the next proposed, and is told its points.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems.node.driver.points import Order
from ems.node.driver.proposer import Proposer, Surroundings
from ems.node.driver.ranges import Range
from ems.node.driver.turns import Turns


@dataclass(frozen=True)
class Told:
    """Points that follow all others; `open`: those that are to be computed."""

    grids: list[dict[str, Any]]
    open: list[Range]


class Rounds:
    """For a driver whose order has `propose`."""

    def __init__(self, order: Order, proposers: Surroundings) -> None:
        self._turns = Turns(Path(order.rounds).absolute())
        self._proposer = Proposer(order.file, proposers)

    def next(self, points: int, go_on: Callable[[], bool]) -> Told | None:
        """The round after so many points, all of which are in the spool; None if there is none, or `go_on` says no."""
        self._turns.tell("computed", points, {})
        heard = self._turns.wait(("points", "question"), points, go_on)
        if heard and heard[0] == "question":
            question = self._turns.file("question", points)
            if (answer := self._proposer.answer(question, go_on)) is not None:
                self._turns.tell("answer", points, answer)
            heard = self._turns.wait(("points",), points, go_on)
        if not heard or not heard[1]["grids"]:
            return None
        return Told(heard[1]["grids"], [(first, last) for first, last in heard[1]["open"]])

    def close(self) -> None:
        """No further round will be asked for."""
        self._proposer.close()
