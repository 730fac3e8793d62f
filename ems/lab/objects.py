"""The objects of a git repository as EMS reads them: commits, their files, and what these contain.

Everything runs the user's own git through GitPython; its exceptions leave here as ProvenanceError. It is imported when
it is used: its import fails on a machine without git. Folders are given to `git.Git` as Path, which it takes as they
are; in text it would expand `$NAME`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ems.base.errors import ProvenanceError
from ems.base.once import Once

if TYPE_CHECKING:
    import git

SYMLINK = "120000"
SUBMODULE = "160000"


@dataclass(frozen=True)
class CommittedFile:
    """A file of a commit. `mode`: git's, six octal digits; `blob`: the object's id; `path`: with forward slashes."""

    path: str
    mode: str
    blob: str


@dataclass(frozen=True, eq=False)
class Listing:
    """All files of a commit, in git's order, which is that of their bytes; paths from the repository's top."""

    files: tuple[CommittedFile, ...]

    @cached_property
    def _keys(self) -> list[bytes]:
        return [_key(file.path) for file in self.files]

    def file(self, path: str) -> CommittedFile | None:
        """The file at `path`."""
        place = bisect_left(self._keys, _key(path))
        return self.files[place] if self._keys[place : place + 1] == [_key(path)] else None

    def places(self, path: str) -> range:
        """Where in `files` the file at `path` is, or all files below that folder; of "" all."""
        key = _key(path)
        if not key:
            return range(len(self.files))
        place = bisect_left(self._keys, key)
        if self._keys[place : place + 1] == [key]:
            return range(place, place + 1)
        return range(bisect_left(self._keys, key + b"/"), bisect_left(self._keys, key + b"0"))  # what comes after "/"


def _key(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


class Objects:
    """The objects of one repository, wherever its working tree is. They never change: each is read once."""

    def __init__(self, git_dir: Path) -> None:
        self.git_dir = git_dir
        self.once = Once()
        self._commands = reader(git_dir)

    def close(self) -> None:
        """End the process that reads; the next reading starts another."""
        self._commands.clear_cache()

    def listing(self, commit: str) -> Listing:
        """The files of a commit; ProvenanceError if the repository does not have it."""
        return self.once(("listing", commit), lambda: Listing(tuple(files(self.git_dir, commit))))

    def read(self, blob: str) -> bytes:
        """The content of an object, by one process for all; ProvenanceError if the repository does not have it."""
        return self.once(("blob", blob), lambda: self._read(blob))

    def _read(self, blob: str) -> bytes:
        try:
            with mapped(f"object {blob}"):
                content: bytes = self._commands.get_object_data(blob)[3]
                return content
        except ValueError:
            return read_blob(self.git_dir, blob)  # which says what is wrong

    def size(self, blob: str) -> int:
        """Of an object, in bytes; ValueError if the repository does not have it."""
        return self.once(("size", blob), lambda: int(self._commands.get_object_header(blob)[2]))

    def read_file(self, commit: str, path: str) -> bytes | None:
        """The content of `path`, from the top, at a commit; None if the commit has no such file."""
        file = self.listing(commit).file(path)
        return self.read(file.blob) if file else None

    def link_targets(self, files: Iterable[CommittedFile]) -> dict[str, str]:
        """Where the symbolic links among `files` lead, as they say it, by their paths."""
        links = [file for file in files if file.mode == SYMLINK]
        return {link.path: self.read(link.blob).decode("utf-8", "replace") for link in links}


@contextmanager
def mapped(doing: str, hint: str = "") -> Iterator[None]:
    """Turn a failure of git into a ProvenanceError that shows what git said."""
    try:
        import git
    except ImportError as error:
        raise _without_git(doing) from error
    try:
        yield
    except git.GitCommandNotFound as error:
        raise _without_git(doing) from error
    except git.CommandError as error:
        raise ProvenanceError(f"{doing}: git failed: {error.stderr.strip() or error}", hint) from error


def _without_git(doing: str) -> ProvenanceError:
    return ProvenanceError(f"{doing}: git is not installed, or not on PATH.", "Install git.")


def commands(folder: Path, **environment: str) -> git.Git:
    """Git's commands, in a folder."""
    import git

    found = git.Git(folder)
    # A commit is what every clone has: `git replace` changes it in this one alone.
    found.update_environment(GIT_NO_REPLACE_OBJECTS="1", **environment)
    return found


def reader(git_dir: Path) -> git.Git:
    """Git commands that read the objects of one repository, wherever its working tree is."""
    found = commands(git_dir, GIT_LITERAL_PATHSPECS="1")
    found.set_persistent_git_options(git_dir=str(git_dir))
    return found


@contextmanager
def streaming(git_dir: Path) -> Iterator[git.Git]:
    """A `reader` whose object streams share one git process, which ends with the block."""
    with mapped(str(git_dir)):
        objects = reader(git_dir)
        try:
            yield objects
        finally:
            objects.clear_cache()


def stream(objects: git.Git, blob: str) -> tuple[int, git.Git.CatFileContentStream]:
    """Size in bytes and content of a blob, which must be read to its end before the next.

    ProvenanceError if the repository does not have it.
    """
    try:
        _, _, size, content = objects.stream_object_data(blob)
    except ValueError as error:
        hint = "The repository is incomplete: see git fsck, then git fetch."
        raise ProvenanceError(f"Object {blob} cannot be read: {error}", hint) from error
    return size, content


def has_commit(git_dir: Path, commit: str) -> bool:
    """Whether the repository has the commit; ProvenanceError if git cannot say."""
    wanted = f"{commit}^{{commit}}"
    with mapped(str(git_dir)):
        code, _, _ = reader(git_dir).cat_file("-e", wanted, with_extended_output=True, with_exceptions=False)
    return bool(code == 0)


def files(git_dir: Path, commit: str, path: str = "") -> list[CommittedFile]:
    """All files of a commit, or the one at `path`, by one listing that opens no blob. [] if `path` is not there.

    ProvenanceError if the repository does not have the commit.
    """
    only = ("--", path) if path else ()
    with mapped(f"commit {commit}"):
        listing: bytes = reader(git_dir).ls_tree(
            "-r", "-z", "--full-tree", commit, *only, stdout_as_string=False, strip_newline_in_stdout=False
        )
    return [_committed_file(line) for line in listing.split(b"\0") if line]


def _committed_file(line: bytes) -> CommittedFile:
    about, _, path = line.partition(b"\t")
    mode, _, blob = about.decode("ascii").split()
    return CommittedFile(path.decode("utf-8", "surrogateescape"), mode, blob)


def read_blob(git_dir: Path, blob: str) -> bytes:
    """The content of an object; ProvenanceError if the repository does not have it."""
    with mapped(f"object {blob}"):
        data: bytes = reader(git_dir).cat_file("blob", blob, stdout_as_string=False, strip_newline_in_stdout=False)
    return data
