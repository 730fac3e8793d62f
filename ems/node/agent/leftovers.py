"""What a job left in its working directory besides results: moved aside, attempt by attempt, and never deleted here.

`left/attempt-2/plot.png` in the folder of a run; `left/attempt-2/EMS_RESULTS_DIR/fit.rds` was in the results folder.
What `shipped.json` beside the unpacked code names, with CRC-32 and size, is of the code, unless the job changed it.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated, TypedDict

from ems.node.agent.unpack import SHIPPED
from ems.node.job import checkpoints
from ems.node.job.variables import CHECKPOINT
from ems.spool.endings import IN_FOLDER

FOLDER, ATTEMPT = "left", "attempt-"
NUMBER = "attempt"  # the file beside the code: of which run its job is, until what that left was moved aside
IN_RESULTS = "EMS_RESULTS_DIR"
IN_CHECKPOINT = f"{CHECKPOINT}/"
CACHES = frozenset(
    ("__pycache__", ".cache", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".DS_Store")
)
MOST_LISTED, EARLIER_LISTED, MOST_EARLIER = 50, 5, 20  # of the last attempt; of each before; such attempts


class FileLeft(TypedDict):
    """A file that a job left unread, or a folder of such files."""

    name: Annotated[
        str,
        "Path from the working directory; of many files their folder, with a slash at its end. `EMS_CHECKPOINT_DIR/` "
        "is the checkpoint from which the next run goes on.",
    ]
    bytes: Annotated[int, "Size in bytes, of a folder that of all files."]
    files: Annotated[int, "How many files that are."]
    attempt: Annotated[int, "The run that left it."]


def begin(run_dir: Path, attempt: int) -> None:
    """A job of this attempt is to start in the unpacked code."""
    (run_dir / "code" / NUMBER).write_text(str(attempt), encoding="utf-8")


def of_run(run_dir: Path, attempt: int) -> Path:
    """Where to keep what the points of a sweep leave, a folder each: one that no other run has used."""
    return _free(run_dir / FOLDER, attempt)


def keep(run_dir: Path, read: Collection[Path] | None = None) -> None:
    """Move what the last job left in the run's folders aside, once; OSError where that is impossible.

    `read`: what was read as results; None if that is not known, as of a run whose agent is gone.
    """
    pending = run_dir / "code" / NUMBER
    if not pending.exists():
        return
    working, results = run_dir / "code" / "code", run_dir / "results"
    found = [(path, path.relative_to(working)) for path in _new(working) if path not in (read or ())]
    found += [
        (path, IN_RESULTS / path.relative_to(results))
        for path in _in_results(results)
        if (path not in read if read is not None else path.suffix.lower() not in IN_FOLDER)
    ]
    target = _free(run_dir / FOLDER, int(pending.read_text(encoding="utf-8")))
    for path, name in found:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(target / name)
    pending.unlink()


def _free(folder: Path, attempt: int) -> Path:
    """A folder of this attempt; another one where a run that was repeated, or a set back database, has used it."""
    names = (folder / f"{ATTEMPT}{attempt}{f'-{number}' if number else ''}" for number in count())
    return next(name for name in names if not name.exists())


def _new(working: Path) -> Iterator[Path]:
    """What is not as the code has it, with links as they are; nothing of what an older EMS unpacked."""
    shipped = _shipped(working.parent)
    if shipped is None:
        return
    for path in _files(working):
        if shipped.get(str(path.relative_to(working))) != _about(path):
            yield path


def _in_results(results: Path) -> Iterator[Path]:
    """But for what is read there by its name, as far as it could be, and what writers keep for themselves."""
    for path in _files(results):
        parts = path.relative_to(results).parts
        top = Path(parts[0]).suffix.lower() in IN_FOLDER
        if not (top and len(parts) > 1 and parts[-1].startswith((".", "_"))):
            yield path


def _files(folder: Path) -> Iterator[Path]:
    """All but folders, at any depth, by name, without caches; links to folders as they are."""
    for at, folders, names in os.walk(folder):
        links = [name for name in folders if Path(at, name).is_symlink()]
        folders[:] = sorted(name for name in folders if name not in CACHES and name not in links)
        for inner in (Path(at, name) for name in folders):
            inner.chmod(inner.stat().st_mode | stat.S_IRWXU)  # before it is looked into
        for path in (Path(at, name) for name in sorted([*names, *links])):
            if path.name not in CACHES and path.suffix != ".pyc":
                yield path


def _shipped(unpacked: Path) -> Mapping[str, list[int]] | None:
    with suppress(OSError, ValueError):
        found: Mapping[str, list[int]] = json.loads((unpacked / SHIPPED).read_text(encoding="utf-8"))
        return found
    return None


def _about(path: Path) -> list[int]:
    """Size and CRC-32 of a file, or of what a link says; of what is neither, nothing."""
    if path.is_symlink():
        text = os.fsencode(path.readlink())
        return [-1, zlib.crc32(text)]
    if not path.is_file():
        return []
    size, crc = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return [size, crc]


# Listed


def checkpoint(run_dir: Path, attempt: int) -> list[FileLeft]:
    """What the next run would go on from, as one entry; run `attempt` was the last one."""
    found = checkpoints.newest(run_dir)
    files = [path for path in found.rglob("*") if path.is_symlink() or not path.is_dir()] if found else []
    size = sum(path.lstat().st_size for path in files)
    return [FileLeft(name=IN_CHECKPOINT, bytes=size, files=len(files), attempt=attempt)] if files else []


def is_checkpoint(file: FileLeft) -> bool:
    """Whether an entry is that."""
    return file["name"] == IN_CHECKPOINT


def folders(run_dir: Path) -> list[tuple[int, Path]]:
    """Where leftovers are, the earliest attempt first, each with its number."""
    found = ((re.fullmatch(rf"{ATTEMPT}(\d+)(-\d+)?", path.name), path) for path in (run_dir / FOLDER).glob("*"))
    return sorted((int(match[1]), path) for match, path in found if match)


def listed(run_dir: Path) -> list[FileLeft]:
    """All that jobs left here: of many files, folders; of very many, the largest and all others as one."""
    *earlier, last = folders(run_dir) or [(0, run_dir / FOLDER)]
    found = [
        each for attempt, folder in earlier[-MOST_EARLIER:] for each in of_attempt(attempt, folder, EARLIER_LISTED)
    ]
    return [*found, *of_attempt(*last)]


def of_attempt(attempt: int, folder: Path, most: int = MOST_LISTED) -> list[FileLeft]:
    """What one attempt left, in at most so many entries."""
    sizes = {_name(path.relative_to(folder)): path.lstat().st_size for path in _files(folder)}
    if len(sizes) > most:
        return _capped(_by_folder(sizes, attempt), attempt, most)
    return [FileLeft(name=name, bytes=size, files=1, attempt=attempt) for name, size in sizes.items()]


def _name(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "replace")


def _by_folder(sizes: Mapping[str, int], attempt: int) -> list[FileLeft]:
    tops: dict[str, FileLeft] = {}
    for name, size in sizes.items():
        top, slash, _ = name.partition("/")
        entry = tops.setdefault(top + slash, FileLeft(name=top + slash, bytes=0, files=0, attempt=attempt))
        entry["bytes"] += size
        entry["files"] += 1
    return list(tops.values())


def _capped(found: list[FileLeft], attempt: int, most: int) -> list[FileLeft]:
    if len(found) <= most:
        return found
    found = sorted(found, key=lambda each: -each["bytes"])
    rest = found[most - 1 :]
    size, files = sum(each["bytes"] for each in rest), sum(each["files"] for each in rest)
    return [*found[: most - 1], FileLeft(name="…", bytes=size, files=files, attempt=attempt)]
