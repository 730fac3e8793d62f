"""The complete records of a text file that something else appends to.

What was read is remembered by its digest and its last bytes, so that a file that was rewritten is noticed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from ems.node.job.records import Record, Records
from ems.node.job.results_file import Rewritten, opened, signature

_BLOCK = 2**18
_VERIFIED_BLOCK = 2**23
_REMEMBERED_BYTES = 64


class Tail:
    """Reads the complete records of a file that something else appends to."""

    def __init__(self, path: Path, quoted: bool, delimiter: str = ",") -> None:
        """`quoted`: records are those of CSV, with this delimiter."""
        self.path = path
        self._records = Records(path, quoted, delimiter)
        self._offset, self._digest = 0, hashlib.sha256()  # of what was read
        self._last = b""  # what that ends with
        self._inode = 0
        self._at_end = False
        self._exhausted: tuple[int, int, int] | None = None

    def take(self, max_rows: int, max_bytes: int, ended: bool) -> list[Record] | None:
        """The next complete records; with `ended` also a last one without a newline. None if there is nothing new.

        [] within a record that is longer than `max_bytes`: the next call reads on.
        """
        before = signature(self.path)
        if before is None:
            self._refuse_removed()
            return None
        if before == self._exhausted and not ended:
            return None
        with opened(self.path) as file:
            self._refuse_rewritten(file)
            records = self._take(file, max_rows, max_bytes, ended)
        is_over = not records and self._at_end
        self._exhausted = before if is_over else None
        return None if is_over else records

    def verified(self) -> Iterator[None]:
        """Read what was read once more, in steps. Rewritten if it is not what it was."""
        digest, offset = hashlib.sha256(), 0
        while offset < self._offset:
            with opened(self.path) as file:
                block = os.pread(file, min(_VERIFIED_BLOCK, self._offset - offset), offset)
            if not block:
                break
            digest.update(block)
            offset += len(block)
            yield
        if digest.digest() != self._digest.digest():
            raise self._rewritten()

    def _refuse_removed(self) -> None:
        if self._offset:
            raise Rewritten(
                f"{self.path} was removed after {self._records.complete_lines} lines of it were read.",
                "Leave results files in place; write those that you rename later under a name that ends in .tmp.",
            )

    def _refuse_rewritten(self, file: int) -> None:
        begin = max(0, self._offset - _REMEMBERED_BYTES)
        same = os.pread(file, len(self._last), begin) == self._last
        inode = os.fstat(file).st_ino
        if self._offset and (inode != self._inode or not same):
            raise self._rewritten()
        self._inode = inode

    def _rewritten(self) -> Rewritten:
        return Rewritten(
            f"{self.path} was shortened or rewritten after {self._records.complete_lines} lines of it were read.",
            "Append to a results file, or write each new state into a file of its own.",
        )

    def _take(self, file: int, max_rows: int, max_bytes: int, ended: bool) -> list[Record]:
        taken: list[Record] = []
        until = self._offset + max_bytes
        while len(taken) < max_rows and max_bytes > 0 and self._is_ready(file, until, ended):
            taken.append(self._records.ready.popleft())
            max_bytes -= len(taken[-1].data)
        return taken

    def _is_ready(self, file: int, until: int, ended: bool) -> bool:
        """Whether there is a record; reads on until there is one, or so far."""
        while not self._records.ready and self._offset < until:
            block = os.pread(file, _BLOCK, self._offset)
            self._at_end = not block
            if not block:
                if ended:
                    self._records.finish()
                break
            self._offset += len(block)
            self._digest.update(block)
            self._last = (self._last + block)[-_REMEMBERED_BYTES:]
            self._records.feed(block)
        return bool(self._records.ready)
