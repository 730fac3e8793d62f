"""What a sweep's `setup` returns, which each call of its function is given by the keyword `context`.

It is called in one worker at a time until it is known what it returns: what can be shared is in memory once for all
workers of the machine, anything else is made anew in each. Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from ems.base.errors import EmsError
from ems.node.driver.functions import imported, told
from ems.node.driver.position import LOADING, SETTING_UP, Position
from ems.node.driver.shared import EMPTY, FAILED, SHARED, SharedMemory

KEYWORD = "context"
AGAIN = "`ems up --retry` tries it again."


def context(setup: str, function: Callable[..., Any], position: Position, memory: SharedMemory) -> Any:
    """What `setup`, as `package.module:name`, returns here or has returned in another worker of the machine.

    `position` is told when it is at work. EmsError if `function` does not take it, or it raises here or there.
    """
    _require_keyword(function)
    call = imported("setup", setup)
    with memory.held():
        if memory.state == EMPTY:
            return _first(setup, call, position, memory)
        if memory.state == SHARED:
            return memory.read()
        if memory.state == FAILED:
            raise EmsError(memory.read())
    return _called(setup, call, position)


def _require_keyword(function: Callable[..., Any]) -> None:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of a compiled one, which does not say it
        return
    named = parameters.get(KEYWORD)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    if named is None or named.kind in {named.POSITIONAL_ONLY, named.VAR_POSITIONAL}:
        if takes_any:
            return
        name = getattr(function, "__name__", repr(function))
        problem = f"setup gives its value by the keyword `{KEYWORD}`, which {name}{inspect.signature(function)} lacks."
        raise EmsError(f"{problem} Add that parameter, or remove `setup:` from the stack file.")


def _first(setup: str, call: Callable[[], Any], position: Position, memory: SharedMemory) -> Any:
    """The value, of the first worker to make it: the others then know whether they have to."""
    began = time.monotonic()
    try:
        value = _called(setup, call, position)
    except EmsError as error:
        memory.fail(str(error))
        raise
    took = f"ems: {setup} took {time.monotonic() - began:.1f} s"
    if memory.keep(value):
        sys.stderr.write(f"{took}; its arrays, {memory.size / 1e6:,.1f} MB, are shared by all workers\n")
        del value
        return memory.read()
    sys.stderr.write(f"{took}; each worker makes its own\n")
    return value


def _called(setup: str, call: Callable[[], Any], position: Position) -> Any:
    process = os.getpid()
    position.set(SETTING_UP)
    try:
        value = call()
    except BaseException as error:  # SystemExit too
        if os.getpid() != process:
            raise
        said = f"setup {setup!r} raised {type(error).__name__}: {error}".split("\n", 1)[0]
        raise EmsError(f"{said}\n{told(error, own_frames=1)}", AGAIN) from None
    if os.getpid() != process:  # it forked, and this is not the worker
        sys.exit()
    position.set(LOADING)
    return value
