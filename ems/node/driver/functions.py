"""Functions of the experiment's code, by name, and what they raised.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable
from typing import Any

from ems.base.errors import EmsError


def imported(key: str, name: str) -> Callable[..., Any]:
    """What `key` of the job, as `function`, names as `package.module:name`. EmsError if that fails, or it is none."""
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except BaseException as error:  # SystemExit too, as of a module that is a script
        raise EmsError(
            f"{key} {name!r} cannot be imported:\n{told(error, own_frames=1)}",
            "It is `package.module:name` in the declared code, with its needs in the experiment's environment.",
        ) from None
    if not callable(found):
        raise EmsError(f"{key} {name!r} is of type {type(found).__name__}, which cannot be called.")
    return found  # type: ignore[no-any-return]


def told(error: BaseException, own_frames: int) -> str:
    """The error with its traceback, but for the outermost frames, which are EMS's own."""
    frames = error.__traceback__
    for _ in range(own_frames):
        frames = frames and frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).strip()
