"""Files that jobs left in EMS_OUTPUT_DIR: which there are, and their way out of the lab's store."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ems.base.backoff import Backoff
from ems.base.errors import StoreError, StoreUnavailable, UserError, refused
from ems.base.messages import plain, quoted
from ems.databases import Experiment, Output, Registration
from ems.lab import Lab
from ems.stores import Store

AT_ONCE = 8  # files
FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_PAUSES = 0.5, 8.0, 5  # before each further try that follows one without progress


@dataclass(frozen=True)
class Target:
    """Where an output is to be on this machine."""

    output: Output
    path: Path


def of_experiment(lab: Lab, experiment: Experiment) -> Iterator[Output]:
    """The files of all its points, in order of points and names; read as they are asked for."""
    with lab.database() as database:
        yield from database.outputs(experiment.id)


def has_points(registration: Registration) -> bool:
    """Whether each point has files of its own: not of a command without a grid."""
    job = json.loads(registration.spec or "{}").get("job", {})
    return "function" in job or "sweep" in job


def path_of(output: Output, *, points: bool) -> str:
    """Its path, of a sweep below a folder of its point's name."""
    return f"point-{output.point}/{output.name}" if points else output.name


def fetch(lab: Lab, found: Iterable[Output], folder: Path, *, points: bool) -> list[Target]:
    """Bring files into a folder, each whole and with its own digest; what is there already is not brought again.

    UserError, and nothing written, where a file of another content is in the way, or a name would lead out of the
    folder; StoreError if the store does not have one, or one that is damaged; EmsError where it cannot be written.
    """
    targets = [Target(output, _inside(folder, path_of(output, points=points))) for output in found]
    try:
        missing = [target for target in targets if not _is_there(target)]
        store = lab.store()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda target: bring(store, target.output, target.path), missing):
                pass
    except OSError as error:
        raise refused(error) from error
    return targets


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    parts = name.split("/")
    if not all(parts) or {".", ".."} & {*parts} or "\0" in name:
        raise UserError(f"An output is called {quoted(name)}, which leads elsewhere.", "Who has recorded it?")
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path.parent} is a link that leads out of {folder}.", "Name another folder.")
    return path


def _is_there(target: Target) -> bool:
    """UserError if it is another one."""
    path = target.path
    if not os.path.lexists(path):
        return False
    if path.is_file() and not path.is_symlink() and path.stat().st_size == target.output.size:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == target.output.digest:
                return True
    raise UserError(f"{path} is there already, and is another one.", "Remove it, or name another folder as --to.")


def bring(store: Store, output: Output, path: Path) -> None:
    """Write its content to `path`, aside and renamed. OSError: no room, no right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        _write(store, output, part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write(store: Store, output: Output, part: Path) -> None:
    digest, pauses, had = hashlib.sha256(), Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S), 0
    with part.open("wb") as file:
        while True:
            try:
                for block in store.read(output.digest, file.tell()):
                    file.write(block)
                    digest.update(block)
                break
            except StoreUnavailable:
                if file.tell() > had:
                    pauses.reset()
                if pauses.count == MOST_PAUSES:
                    raise
            had = file.tell()
            pauses.wait()
    if digest.hexdigest() != output.digest:
        raise StoreError(
            f"The content of {plain(output.name)} in {store.name} is damaged: its SHA-256 is {digest.hexdigest()}, "
            f"and should be {output.digest}.",
            "Put it back there from a copy, or have the job write it again.",
        )
