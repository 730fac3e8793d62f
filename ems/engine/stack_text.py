"""Stack files keep the text that people wrote: Pulumi writes them anew, 2.0 as 2, when it adds keys of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ems.base import aside
from ems.stack import stackfile
from ems.stack.schema import WRITTEN_BY_PULUMI


@contextmanager
def keeping_text(file: Path) -> Iterator[None]:
    """Of what Pulumi writes into the stack file in the block, only its own keys stay."""
    before = file.read_bytes() if file.is_file() else b""
    try:
        yield
    finally:
        after = file.read_bytes() if file.is_file() else b""
        kept = _with_keys_of(before, after)
        if before and before != after and stackfile.meaning(kept) == stackfile.meaning(after):
            aside.write(file.resolve(), kept)


def _with_keys_of(before: bytes, after: bytes) -> bytes:
    lines = [line for line in after.splitlines() if line.partition(b":")[0].decode() in WRITTEN_BY_PULUMI]
    return b"\n".join([before.rstrip(b"\n"), *lines, b""])
