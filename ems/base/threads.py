"""Threads that hinder nobody from leaving: what they are at may be killed at any time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, nullcontext
from threading import Semaphore, Thread
from typing import Any


class Threads(Executor):
    """A thread for each call, `most` at once if that is given; the rest wait, and begin in any order."""

    def __init__(self, most: int | None = None) -> None:
        self._turns: AbstractContextManager[Any] = nullcontext() if most is None else Semaphore(most)

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """The call's result, once it has one; what it raises is raised by `result()`."""
        future: Future[Any] = Future()
        Thread(target=self._run, args=(future, lambda: call(*arguments, **named)), daemon=True).start()
        return future

    def _run(self, future: Future[Any], call: Callable[[], Any]) -> None:
        with self._turns:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
