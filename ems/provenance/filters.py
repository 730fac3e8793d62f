"""Files whose stored form is not the one that people work with: Git LFS, other filters, encodings of the working tree.

A job gets what the repository stores. Attributes count wherever they are set: in the commit, in this clone alone
(`info/attributes`), or for all clones of this user (`core.attributesFile`).
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ems.provenance import repository
from ems.provenance.repository import SUBMODULE, SYMLINK, CommittedFile

LFS = "lfs"
POINTER = b"version https://git-lfs"
POINTER_BYTES = 1024  # a pointer is smaller
UNSET = {"unspecified", "unset", "set", ""}
UNCHANGED = {"", "cat"}  # what checks such a file out unchanged, as nbstripout's filter does


def converted(
    git_dir: Path, commit: str, everything: Sequence[CommittedFile], files: Sequence[CommittedFile]
) -> Iterator[tuple[str, list[str], str]]:
    """How files are kept, which files, and what to do about it. `everything`: all files of the commit."""
    own = [file for file in files if file.mode not in {SUBMODULE, SYMLINK}]
    has_attributes = any(posixpath.basename(file.path) == ".gitattributes" for file in everything)
    attributes = _attributes(git_dir, commit if has_attributes else "", own)
    for name in sorted({filter for filter, _ in attributes.values()} - UNSET - {LFS}):
        if not _is_unchanged(git_dir, name):
            paths = [file.path for file, (filter, _) in attributes.items() if filter == name]
            fix = f"Leave them out of code.paths, or store them without the filter {name!r} of .gitattributes."
            yield f"kept under the git filter {name!r}: the job would read them in their stored form", paths, fix
    encoded = [file.path for file, (_, encoding) in attributes.items() if encoding not in UNSET]
    fix = "Leave them out of code.paths, or remove working-tree-encoding from .gitattributes."
    yield "kept in another encoding than that of the working tree", encoded, fix
    pointers = _pointers(git_dir, [file for file, (filter, _) in attributes.items() if filter == LFS])
    fix = "Leave them out of code.paths, or take them back into git: git lfs migrate export --include PATTERN"
    yield "kept by Git LFS: the repository holds pointers only, not the content", pointers, fix


def _attributes(git_dir: Path, commit: str, files: Sequence[CommittedFile]) -> dict[CommittedFile, tuple[str, str]]:
    """`filter` and `working-tree-encoding` of each file; with a `commit`, also as it says itself."""
    with tempfile.TemporaryDirectory() as folder, repository.mapped(str(git_dir)):
        commands = repository.reader(git_dir)
        commands.update_environment(GIT_INDEX_FILE=f"{folder}/index")
        if commit:
            commands.read_tree(commit)
        asked = Path(folder, "paths")
        asked.write_bytes(b"".join(file.path.encode("utf-8", "surrogateescape") + b"\0" for file in files))
        with asked.open("rb") as paths:
            found: bytes = commands.check_attr(
                "--cached", "-z", "--stdin", "filter", "working-tree-encoding", istream=paths, stdout_as_string=False
            )
    values = iter(found.decode("utf-8", "surrogateescape").split("\0")[2::3])
    return dict(zip(files, zip(values, values, strict=False), strict=False))


def _is_unchanged(git_dir: Path, filter: str) -> bool:
    """Whether this filter gives back, at a checkout, what is stored; one that is not set up here changes nothing."""
    with repository.mapped(str(git_dir)):
        commands = repository.reader(git_dir)
        settings = [
            str(commands.config("--default", "", "--get", f"filter.{filter}.{key}")).strip()
            for key in ("smudge", "process")
        ]
    return all(setting in UNCHANGED for setting in settings)


def _pointers(git_dir: Path, files: Sequence[CommittedFile]) -> list[str]:
    if not files:
        return []
    with repository.streaming(git_dir) as objects:
        small = [file for file in files if objects.get_object_header(file.blob)[2] < POINTER_BYTES]
        return [file.path for file in small if objects.get_object_data(file.blob)[3].startswith(POINTER)]
