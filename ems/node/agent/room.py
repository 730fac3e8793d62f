"""Room on a disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ems.base.errors import EmsError


@contextmanager
def room(folder: Path) -> Iterator[None]:
    """A full disk is an error that names the folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        hint = "Free some space there, then go on with: ems up --retry"
        raise EmsError(f"{folder} is full: {os.strerror(error.errno)}.", hint) from error
