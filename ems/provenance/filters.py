"""Files whose stored form is not the one that people work with: Git LFS, other filters, encodings of the working tree.

A job gets what the repository stores. Attributes count wherever they are set: in the commit, in this clone alone
(`info/attributes`), or for all clones of this user (`core.attributesFile`).
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ems.lab.objects import SUBMODULE, SYMLINK, CommittedFile, Objects, mapped, reader

LFS = "lfs"
POINTER = b"version https://git-lfs"
POINTER_BYTES = 1024  # a pointer is smaller
UNSET = {"unspecified", "unset", "set", ""}
UNCHANGED = {"", "cat"}  # what checks such a file out unchanged, as nbstripout's filter does


def converted(
    objects: Objects, commit: str, prefix: str, files: Sequence[CommittedFile]
) -> Iterator[tuple[str, list[str], str]]:
    """How files are kept, which files, and what to do about it. Their paths are below `prefix`, "" or "a/b/"."""
    everything = objects.once(("attributes", commit, prefix), lambda: _attributes(objects, commit, prefix))
    own = [file for file in files if file.mode not in {SUBMODULE, SYMLINK}]
    attributes = {file: found for file in own if (found := everything.get(prefix + file.path))}
    for name in sorted({filter for filter, _ in attributes.values()} - UNSET - {LFS}):
        if not objects.once(("filter", name), lambda name=name: _is_unchanged(objects.git_dir, name)):  # type: ignore[misc]
            paths = [file.path for file, (filter, _) in attributes.items() if filter == name]
            fix = f"Leave them out of code.paths, or store them without the filter {name!r} of .gitattributes."
            yield f"kept under the git filter {name!r}: the job would read them in their stored form", paths, fix
    encoded = [file.path for file, (_, encoding) in attributes.items() if encoding not in UNSET]
    fix = "Leave them out of code.paths, or remove working-tree-encoding from .gitattributes."
    yield "kept in another encoding than that of the working tree", encoded, fix
    pointers = [file.path for file, (filter, _) in attributes.items() if filter == LFS and _is_pointer(objects, file)]
    fix = "Leave them out of code.paths, or take them back into git: git lfs migrate export --include PATTERN"
    yield "kept by Git LFS: the repository holds pointers only, not the content", pointers, fix


def _attributes(objects: Objects, commit: str, prefix: str) -> dict[str, tuple[str, str]]:
    """`filter` and `working-tree-encoding` of the files below `prefix` that have one, also by the commit's own word."""
    listing = objects.listing(commit)
    files = [listing.files[place].path for place in listing.places(prefix.rstrip("/"))]
    with tempfile.TemporaryDirectory() as folder, mapped(str(objects.git_dir)):
        commands = reader(objects.git_dir)
        commands.update_environment(GIT_INDEX_FILE=f"{folder}/index")
        if any(posixpath.basename(file.path) == ".gitattributes" for file in listing.files):
            commands.read_tree(commit)
        asked = Path(folder, "paths")
        asked.write_bytes(b"".join(path.encode("utf-8", "surrogateescape") + b"\0" for path in files))
        with asked.open("rb") as paths:
            found: bytes = commands.check_attr(
                "--cached", "-z", "--stdin", "filter", "working-tree-encoding", istream=paths, stdout_as_string=False
            )
    values = iter(found.decode("utf-8", "surrogateescape").split("\0")[2::3])
    pairs = zip(files, zip(values, values, strict=False), strict=False)
    return {path: pair for path, pair in pairs if not UNSET.issuperset(pair)}


def _is_unchanged(git_dir: Path, filter: str) -> bool:
    """Whether this filter gives back, at a checkout, what is stored; one that is not set up here changes nothing."""
    with mapped(str(git_dir)):
        commands = reader(git_dir)
        settings = [
            str(commands.config("--default", "", "--get", f"filter.{filter}.{key}")).strip()
            for key in ("smudge", "process")
        ]
    return all(setting in UNCHANGED for setting in settings)


def _is_pointer(objects: Objects, file: CommittedFile) -> bool:
    return objects.size(file.blob) < POINTER_BYTES and objects.read(file.blob).startswith(POINTER)
