"""What is asked once: answers that hold for one moment, such as that in which a command looks at a lab."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, TypeVar

from ems.base.errors import EmsError

T = TypeVar("T")


class Once:
    """The first answer to each question, an EmsError included, is the answer to all that follow, in any thread."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, Any] = {}
        self._errors: dict[Hashable, EmsError] = {}
        self._lock = RLock()

    def __call__(self, question: Hashable, ask: Callable[[], T]) -> T:
        """The answer of `ask`, which is called only if nobody has asked this question before."""
        with self._lock:
            if question in self._errors:
                raise self._errors[question]
            if question not in self._answers:
                try:
                    self._answers[question] = ask()
                except EmsError as error:
                    self._errors[question] = error
                    raise
            found: T = self._answers[question]
            return found
