"""What the driver of a sweep and its agent tell each other between two rounds: files of a folder.

Each has the number of points N that there are until then, which names the turn:

    computed-N.json   the driver: all points below N are in the spool
    question-N.json   the agent: all is stored; what the next round is to be proposed from (`ems.node.driver.stored`)
    answer-N.json     the driver: what was proposed (`ems.node.driver.proposal`), or why nothing was
    points-N.json     the agent: {"grids": those of the points from N on, "open": ranges of those to compute}; without
                      grids where no further round comes

A turn may be without question and answer. Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ems.base import aside
from ems.sweep import Sweep

Word = Literal["computed", "question", "answer", "points"]
Said = Mapping[str, Any]
POLL_S = 0.01


class Turns:
    """The folder, for one of the two. It is not flushed: after a crash of the machine all turns begin anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tell(self, word: Word, points: int, said: Said) -> None:
        """Say it, for the other one to hear; OSError on a full disk."""
        aside.write(self.file(word, points), json.dumps(said), lasting=False)

    def heard(self, word: Word, points: int) -> Said | None:
        """What the other one said; None if it has not yet."""
        try:
            said: Said = json.loads(self.file(word, points).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return said

    def wait(self, words: Sequence[Word], points: int, go_on: Callable[[], bool]) -> tuple[Word, Said] | None:
        """The first of these words that is heard; None once `go_on` says no."""
        while go_on():
            for word in words:
                if (said := self.heard(word, points)) is not None:
                    return word, said
            time.sleep(POLL_S)
        return None

    def forget(self, points: int) -> None:
        """A turn is over; its points stay, for workers that come later."""
        words: tuple[Word, ...] = ("computed", "question", "answer")
        for word in words:
            self.file(word, points).unlink(missing_ok=True)

    def caught_up(self, sweep: Sweep, point: int) -> Sweep:
        """The sweep with the rounds told since, as far as needed to have this point."""
        while point >= len(sweep):
            said = self.heard("points", len(sweep))
            assert said and said["grids"]  # nobody asks for points that were not told
            sweep = sweep.extended(said["grids"])
        return sweep

    def file(self, word: Word, points: int) -> Path:
        """Where a word of this turn is."""
        return self.folder / f"{word}-{points}.json"
