"""Lay out a bundle in a folder. Standard library alone: it runs where nothing is installed yet."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from ems.base import aside
from ems.base.errors import ProvenanceError

CODE = "code/"
SHIPPED = "shipped.json"  # beside the folder of the code: what that has, to tell apart what the job left


def unpack(bundle: Path, target: Path) -> None:
    """Unpack `SHA256.zip` as the folder `target`, which is replaced if it exists and is never seen half written.

    ProvenanceError: the bytes are not those of the name, or a member would land outside. OSError: no space, no right.
    """
    verify(bundle)
    try:
        with aside.making(target) as folder, ZipFile(bundle) as archive:
            folder.mkdir(parents=True)
            _extract(archive, folder)
            (folder / SHIPPED).write_text(json.dumps(_shipped(archive)), encoding="utf-8")
    except BadZipFile as error:
        raise ProvenanceError(
            f"{bundle} is not a bundle: {error}.", "Run `ems up` again: it makes the bundle."
        ) from error


def verify(bundle: Path) -> None:
    """ProvenanceError if the bundle is missing, cannot be read, or does not have the bytes of its name."""
    digest = hashlib.sha256()
    try:
        with bundle.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise ProvenanceError(f"The bundle cannot be read: {error}.", "`ems up STACK` makes it again.") from error
    if digest.hexdigest() != bundle.stem:
        raise ProvenanceError(
            f"{bundle} is damaged: its SHA-256 is {digest.hexdigest()}, not the one it is named after.",
            "`ems up STACK` makes it again.",
        )


def _extract(archive: ZipFile, folder: Path) -> None:
    """Files first, links last, each checked to stay inside the folder."""
    for member in archive.infolist():
        if not _is_link(member):
            path = _place(folder, member)
            with archive.open(member) as content, path.open("xb") as file:
                shutil.copyfileobj(content, file, 1 << 20)
            path.chmod(stat.S_IMODE(member.external_attr >> 16))
    links = {member.filename: _place(folder, member) for member in archive.infolist() if _is_link(member)}
    for name, path in links.items():
        path.symlink_to(archive.read(name).decode("utf-8", "surrogateescape"))
    for name, path in links.items():
        _require_inside(folder, path, name)


def _shipped(archive: ZipFile) -> dict[str, list[int]]:
    """Size, of a link -1, and CRC-32 of each file of the code, by its path in the working directory."""
    code = (member for member in archive.infolist() if member.filename.startswith(CODE))
    return {
        member.filename.removeprefix(CODE): [-1 if _is_link(member) else member.file_size, member.CRC]
        for member in code
    }


def _is_link(member: ZipInfo) -> bool:
    return stat.S_ISLNK(member.external_attr >> 16)


def _place(folder: Path, member: ZipInfo) -> Path:
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        raise ProvenanceError(f"The bundle has a member {member.filename!r}, which would land outside its folder.")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _require_inside(folder: Path, link: Path, name: str) -> None:
    try:
        reached = link.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise ProvenanceError(f"The bundle has a symbolic link {name!r} that leads nowhere: {error}.") from error
    if not reached.is_relative_to(folder.resolve()):
        raise ProvenanceError(f"The bundle has a symbolic link {name!r} that points outside: {reached}.")
