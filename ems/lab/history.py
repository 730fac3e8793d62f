"""Which commits changed the files of one folder: for all files at once what `git rev-list HEAD -- FILE` says of one.

Git follows a file from HEAD to the first parent that has it unchanged; a commit that has it otherwise than all of its
parents is one that changed it. Of a merge that did so, git itself is asked what comes before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import git

NEAR = 1_000  # commits that are read first: most files that are asked for were changed in one of them


class Version(NamedTuple):
    """A commit that changed a file, and the object that the file was from then on, "" of one that was removed."""

    commit: str
    blob: str


class _Commit(NamedTuple):
    tree: str
    parents: tuple[str, ...]


class _Beyond(Exception):
    """The way leads to commits that were not read."""


class _Merged(Exception):
    """The way leads on in several directions."""


class History:
    """Of the files below `folder`, from the top of the repository whose `commands` are given; "." is all."""

    def __init__(self, commands: git.Git, head: str, folder: str) -> None:
        self._commands, self._head, self._folder = commands, head, folder
        self._commits: dict[str, _Commit] = {}
        self._before: dict[tuple[str, str], dict[str, str]] = {}  # of two trees: the older objects of what differs
        self._skips: dict[str, str] = {}  # from a commit that changed no file to the next that may have changed one
        self._load(NEAR)

    def versions(self, path: str, blob: str) -> list[Version] | None:
        """The last two versions of a file, the newest first, which is `blob` at HEAD; None if git has to be asked."""
        try:
            return list(self._versions(path, blob))
        except _Beyond:
            self._load(-1)
            return self.versions(path, blob)
        except _Merged:
            return None

    def _versions(self, path: str, blob: str) -> Iterator[Version]:
        at, found = self._head, 0
        while True:
            at = self._skips.get(at, at)
            befores = self._befores(at, path)
            same = [parent for parent, before in befores.items() if before is None]
            if same:
                at = same[0]
                continue
            if blob or befores:  # a first commit without the file has not changed it
                yield Version(at, blob)
                found += 1
            if not befores or found == 2:
                return
            if len(befores) > 1:
                raise _Merged
            ((at, before),) = befores.items()
            blob = before or ""

    def _befores(self, commit: str, path: str) -> dict[str, str | None]:
        """What the file was in each parent: None as it is in the commit, "" if it was not there."""
        here, found = self._commit(commit), dict[str, str | None]()
        for parent in here.parents:
            found[parent] = self._before_of(self._commit(parent), here).get(path)
            if found[parent] is None:
                break
        return found

    def _commit(self, commit: str) -> _Commit:
        if commit not in self._commits:
            raise _Beyond
        return self._commits[commit]

    def _before_of(self, older: _Commit, newer: _Commit) -> Mapping[str, str]:
        return self._before.get((older.tree, newer.tree), {})

    def _load(self, most: int) -> None:
        """Read the newest commits, or with -1 all."""
        listing = str(self._commands.rev_list("--parents", "--format=%T", f"--max-count={most}", self._head))
        lines = listing.split("\n")
        for line, tree in zip(lines[::2], lines[1::2], strict=True):
            _, commit, *parents = line.split()
            self._commits[commit] = _Commit(tree, tuple(parents))
        self._before = self._differences()
        for commit, here in reversed(self._commits.items()):
            first = here.parents[0] if here.parents else ""
            if first in self._commits and not self._before_of(self._commits[first], here):
                self._skips[commit] = self._skips.get(first, first)

    def _differences(self) -> dict[tuple[str, str], dict[str, str]]:
        """Of each commit and each of its parents that were read: the files that differ, as they were in the parent."""
        read = [(self._commits.get(parent), commit) for commit in self._commits.values() for parent in commit.parents]
        pairs = {(older.tree, newer.tree) for older, newer in read if older and older.tree != newer.tree}
        with tempfile.TemporaryFile() as asked:
            asked.write("".join(f"{older} {newer}\n" for older, newer in pairs).encode())
            asked.seek(0)
            options = ("--stdin", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--", self._folder)
            output: bytes = self._commands.diff_tree(*options, istream=asked, stdout_as_string=False)
        return _parsed(output.decode("utf-8", "surrogateescape"))


def _parsed(output: str) -> dict[tuple[str, str], dict[str, str]]:
    """Of `git diff-tree`: a line with two trees, then for each file `:MODES OBJECTS STATUS`, NUL, path, NUL."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    words, here = iter(output.split("\0")), dict[str, str]()
    for word in words:
        for line in filter(None, word.split("\n")):
            if line.startswith(":"):
                before = line.split()[2]
                here[next(words)] = before if before.strip("0") else ""
            else:
                older, newer = line.split()
                here = found.setdefault((older, newer), {})
    return found
