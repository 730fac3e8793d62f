"""Files of a job stored in a folder, in comparison with `cp` to the same disk: `.venv/bin/python benchmarks/outputs.py`

Turn by turn, each with its content flushed to the disk, of 1 GB in one file and in 1,000; and the most memory taken.
"""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ems.node.agent.porter import AT_ONCE
from ems.stores import Source, connect

BYTES, PIECE, TURNS = 10**9, 10**6, 5


def timed(call: Callable[[], object]) -> float:
    os.sync()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def copied(files: Path, there: Path) -> None:
    subprocess.run(["cp", "-r", str(files), str(there)], check=True)
    subprocess.run(["sync", "-f", str(there)], check=True)


def stored(files: Path, there: Path) -> None:
    store = connect(str(there), Path())
    store.make_ready()

    def put(file: Path) -> None:
        with Source(file) as source:
            store.put(source)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(put, sorted(files.iterdir())))


def main(count: int, folder: Path) -> None:
    files = folder / "files"
    files.mkdir()
    for number in range(count):
        with (files / f"{number}").open("wb") as file:
            for _ in range(BYTES // count // PIECE):
                file.write(os.urandom(PIECE))
    took: dict[str, list[float]] = {"cp": [], "store": []}
    for _ in range(TURNS):
        for name, call in (("cp", copied), ("store", stored)):
            took[name].append(timed(lambda call=call, name=name: call(files, folder / name)))
            shutil.rmtree(folder / name)
    shutil.rmtree(files)
    ratios = [cp / store for cp, store in zip(took["cp"], took["store"], strict=True)]
    rates = {name: BYTES / 1e6 / statistics.median(each) for name, each in took.items()}
    print(f"{count:,} files: cp {rates['cp']:,.0f} MB/s, store {rates['store']:,.0f} MB/s, ", end="")
    print(f"{statistics.median(ratios):.0%} of it ({min(ratios):.0%} to {max(ratios):.0%})")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as scratch:
        for number in (1, 1_000):
            main(number, Path(scratch))
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:,.0f} MB")
