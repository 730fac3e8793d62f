"""What a run needs, in one file that is named after its own SHA-256.

    code/…                                      the declared files at the exact commit, with modes and symbolic links
    environment/{requirements.txt,python-version}
    environment/packages.json                   the repository's own packages that the lock installs, if there are any
    spec.json                                   the experiment's stack file, validated
    ems.zip                                     EMS's own code for `python -m ems.node`

A zip without compression: what a compressor writes differs between versions of zlib, stored bytes do not.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from ems.base import aside
from ems.base.locks import exclusive
from ems.base.private import make_folder
from ems.lab.objects import stream, streaming
from ems.node.agent.packages import PACKAGES
from ems.provenance.code import Code
from ems.provenance.environment import LOCK, PYTHON, Environment

if TYPE_CHECKING:
    import git

FILE = stat.S_IFREG | 0o644
NODE_BASE = (
    "__init__",
    "aside",
    "backoff",
    "errors",
    "filesystems",
    "locks",
    "messages",
    "plugins",
    "private",
    "process",
    "seal",
    "threads",
    "version",
)
NODE_FILES = ("__init__", *(f"base/{name}" for name in NODE_BASE))
NODE_FOLDERS = ("node", "databases", "stack", "spool", "stores", "sweep")


@dataclass(frozen=True)
class Bundle:
    """A bundle on this machine; its name is its SHA-256 (64 hexadecimal digits)."""

    path: Path
    sha256: str


def make(folder: Path, code: Code, environment: Environment, spec_json: str) -> Bundle:
    """Write `FOLDER/SHA256.zip`, aside and renamed. The same arguments give the same bytes on every machine.

    ProvenanceError if the repository lacks an object; OSError if the file cannot be written.
    """
    own = [package.as_json() for package in environment.packages]
    small = {
        **({PACKAGES: json.dumps(own, sort_keys=True).encode()} if own else {}),
        f"environment/{LOCK}": environment.lock.encode(),
        f"environment/{PYTHON}": f"{environment.python}\n".encode(),
        "spec.json": spec_json.encode(),
        "ems.zip": _node_code(),
    }
    part = folder / "unfinished.tmp"
    make_folder(folder)
    with exclusive(folder / ".lock"):
        with ZipFile(part, "w", ZIP_STORED) as archive:
            with streaming(code.git_dir) as objects:
                _add_code(archive, objects, code)
            for name, content in small.items():
                _add(archive, name, FILE, len(content), io.BytesIO(content))
        with part.open("rb") as written:
            sha256 = hashlib.file_digest(written, "sha256").hexdigest()
        made = Bundle(folder / f"{sha256}.zip", sha256)
        aside.publish(part, made.path)
    return made


def _add_code(archive: ZipFile, objects: git.Git, code: Code) -> None:
    for file in code.files:
        size, content = stream(objects, file.blob)
        _add(archive, f"code/{file.path}", int(file.mode, 8), size, content)


def _add(archive: ZipFile, name: str, mode: int, size: int, content: IO[bytes] | git.Git.CatFileContentStream) -> None:
    """Nothing of this machine goes in: no times, no owner, no umask."""
    about = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    about.create_system = 3  # Unix, whose modes are in the upper half of the attributes
    about.external_attr = mode << 16
    about.file_size = size
    with archive.open(about, "w") as member:
        shutil.copyfileobj(content, member, 1 << 20)


def _node_code() -> bytes:
    written = io.BytesIO()
    top = Path(__file__).parents[2]
    with ZipFile(written, "w", ZIP_STORED) as archive:
        for file in sorted(_node_files(top)):
            _add(archive, file.relative_to(top).as_posix(), FILE, file.stat().st_size, io.BytesIO(file.read_bytes()))
    return written.getvalue()


def _node_files(top: Path) -> Iterator[Path]:
    """What `python -m ems.node` needs, whatever it imports when."""
    package = top / "ems"
    yield from (package / f"{name}.py" for name in NODE_FILES)
    for folder in NODE_FOLDERS:
        yield from (package / folder).rglob("*.py")
