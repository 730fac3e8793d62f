"""Waiting for what processes do, and looking at processes and files that vanish meanwhile."""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

PATIENCE_S = 300
"""A limit that only a hang reaches, also on a machine that is busy with other work."""


def eventually(condition: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not come true"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def matching(folder: Path, pattern: str) -> list[Path]:
    """The files below `folder`, as `Path.glob` gives them, which stumbles over a folder that vanishes as it looks."""
    return [folder / name for name in sorted(glob.glob(pattern, root_dir=folder))]  # noqa: PTH207


def having(word: str, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those whose command line contains `word`."""
    return [process for process in processes if word in _command_line(process)]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
