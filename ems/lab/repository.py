"""What git says of a lab at one moment: HEAD, the state of the working tree, who changed what; and clones of others.

A command asks each question once, for all stacks together: however many there are, git runs as often.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from ems.base.cache import cache_dir
from ems.base.errors import ProvenanceError, Unreachable
from ems.base.locks import exclusive
from ems.base.once import Once
from ems.lab.history import History, Version
from ems.lab.objects import Objects, commands, files, has_commit, mapped, reader

if TYPE_CHECKING:
    import git

T = TypeVar("T")
SSH = "ssh -oBatchMode=yes -oConnectTimeout=20 -oServerAliveInterval=10 -oServerAliveCountMax=3"
UNATTENDED = {  # asks for no password, and gives up a connection that is silent
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_HTTP_LOW_SPEED_LIMIT": "1",
    "GIT_HTTP_LOW_SPEED_TIME": "60",
}


@dataclass(frozen=True, eq=False)
class WorkTree:
    """The repository that a lab's folder lies in. `prefix`: the folder below the repository's top, "" or "a/b/".

    What git said once is not asked again: make a new one to see what has changed.
    """

    repo: git.Repo
    git: git.Git  # commands at the repository's top
    root: Path
    prefix: str
    head: str  # full hash
    _once: Once = field(default_factory=Once)

    def once(self, question: Hashable, ask: Callable[[], T]) -> T:
        """The answer of `ask` to this question, which may run git; it is kept."""

        def asked() -> T:
            with mapped(f"{self.root}"):
                return ask()

        return self._once(question, asked)

    @cached_property
    def git_dir(self) -> Path:
        """Where the objects are: of a linked worktree, the main repository, which outlives it."""
        return Path(self.repo.common_dir).resolve()

    def objects(self, git_dir: Path | None = None) -> Objects:
        """Those of the lab's repository, or of another one."""
        folder = git_dir or self.git_dir
        return self.once(("objects", folder), lambda: Objects(folder))

    def close(self) -> None:
        """End git's processes that still wait for questions."""
        self.objects().close()
        self.repo.close()

    def below_top(self, file: Path) -> str:
        """The path of a file of the lab as git names it, from the repository's top; `../…` of one outside."""
        here = file.parent.resolve() / file.name  # git knows a symbolic link by its own path
        return posixpath.normpath(self.prefix + Path(os.path.relpath(here, self.root.resolve())).as_posix())

    def as_seen(self, path: str) -> str:
        """The path of a file, from the repository's top, for a command that is typed in the working directory."""
        seen = os.path.relpath(Path(str(self.repo.working_tree_dir)).resolve() / path)
        return f"./{seen}" if seen.startswith("-") else seen


@contextmanager
def opened(root: Path) -> Iterator[WorkTree]:
    """As `work_tree`, closed at the end of the block."""
    tree = work_tree(root)
    try:
        yield tree
    finally:
        tree.close()


def work_tree(root: Path) -> WorkTree:
    """The repository of the lab in `root` as it is now; ProvenanceError if there is none, or it has no commit."""
    with mapped(f"{root}"):
        repo = _repo(root)
        if repo.working_tree_dir is None:
            raise ProvenanceError(f"{root} is a bare git repository: a lab needs its files.", "git clone it first.")
        top = Path(repo.working_tree_dir).resolve()
        # Without optional locks two commands at once never meet on index.lock.
        git = commands(top, GIT_OPTIONAL_LOCKS="0", GIT_LITERAL_PATHSPECS="1")
        below = root.resolve().relative_to(top).as_posix()
        return WorkTree(repo, git, root, "" if below == "." else f"{below}/", _head(git, root))


def _repo(root: Path) -> git.Repo:
    import git

    try:
        return git.Repo(root, search_parent_directories=True, expand_vars=False)
    except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
        hint = f"git -C {shlex.quote(str(root))} init && {_first_commit(root)}"
        raise ProvenanceError(f"{root} is not in a git repository, so its code has no version.", hint) from error


def _head(commands: git.Git, root: Path) -> str:
    code, head, _ = commands.rev_parse(
        "--verify", "--quiet", "HEAD^{commit}", with_extended_output=True, with_exceptions=False
    )
    if code == 1:
        raise ProvenanceError(f"{root}: the git repository has no commit yet.", _first_commit(root))
    return str(head) if code == 0 else str(commands.rev_parse("--verify", "HEAD^{commit}"))


def _first_commit(root: Path) -> str:
    here = shlex.quote(str(root))
    return f"git -C {here} add . && git -C {here} commit -m 'First version'"


def changes(tree: WorkTree, paths: list[str]) -> list[tuple[str, str]]:
    """(git's two letters, path from the top) of what differs from HEAD or is untracked, in `paths` from the top."""
    found = tree.once(("changes", asked := _asked(tree, paths)), lambda: _changes(tree, asked))
    return [(letters, path) for letters, path in found if _is_within(path, paths)]


def _changes(tree: WorkTree, paths: tuple[str, ...]) -> list[tuple[str, str]]:
    options = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    listing = tree.git.status(*options, "--", *paths, strip_newline_in_stdout=False)
    return [(line[:2], line[3:]) for line in str(listing).split("\0") if line]


def ignored(tree: WorkTree, paths: list[str]) -> list[str]:
    """Files, and whole folders with a `/` at the end, below `paths` that git ignores; paths from the top."""
    found = tree.once(("ignored", asked := _asked(tree, paths)), lambda: _ignored(tree, asked))
    return [path for path in found if _is_within(path, paths)]


def _ignored(tree: WorkTree, paths: tuple[str, ...]) -> list[str]:
    options = ("--others", "--ignored", "--exclude-standard", "--directory", "-z")
    listing = tree.git.ls_files(*options, "--", *paths, strip_newline_in_stdout=False)
    return [path for path in str(listing).split("\0") if path]


def _asked(tree: WorkTree, paths: list[str]) -> tuple[str, ...]:
    """The whole lab, once for all stacks, unless a path lies outside."""
    is_inside = all(f"{path}/".startswith(tree.prefix) and not f"{path}/".startswith("../") for path in paths)
    return (tree.prefix or ".",) if is_inside else tuple(paths)


def _is_within(found: str, paths: list[str]) -> bool:
    path = found.rstrip("/")
    return any(folder in {".", path} or path.startswith(f"{folder}/") for folder in paths)


def staged(tree: WorkTree, path: str) -> str:
    """The object of a file, from the top, in git's index; "" if it has no such file."""
    folder = posixpath.dirname(path) or "."
    return tree.once(("staged", folder), lambda: _staged(tree, folder)).get(path, "")


def _staged(tree: WorkTree, folder: str) -> dict[str, str]:
    listing = str(tree.git.ls_files("--stage", "-z", "--", folder, strip_newline_in_stdout=False))
    entries = [line.partition("\t") for line in listing.split("\0") if line]
    return {path: about.split()[1] for about, _, path in reversed(entries)}  # of a conflict's three, the first


def versions(tree: WorkTree, path: str) -> list[Version]:
    """The last two commits that changed a file, from the top, the newest first; [] if none has it."""
    return tree.once(("versions", path), lambda: _versions(tree, path))


def _versions(tree: WorkTree, path: str) -> list[Version]:
    folder, file = posixpath.dirname(path) or ".", tree.objects().listing(tree.head).file(path)
    history = tree.once(("history", folder), lambda: History(tree.git, tree.head, folder))
    found = history.versions(path, file.blob) if file else None
    return [_version(tree, commit, path) for commit in changed_by(tree, 2, path)] if found is None else found


def _version(tree: WorkTree, commit: str, path: str) -> Version:
    found = [file.blob for file in files(tree.git_dir, commit, path) if file.path == path]
    return Version(commit, found[0] if found else "")


def changed_by(tree: WorkTree, most: int, *paths: str) -> list[str]:
    """The last commits that changed one of the files, asked for these alone."""
    listing = tree.once(("changed", most, paths), lambda: str(tree.git.rev_list(f"-{most}", tree.head, "--", *paths)))
    return listing.split()


def remote_name(tree: WorkTree) -> str:
    """`origin`, or the first other remote; "" where there is none."""
    names = tree.once("remotes", lambda: [remote.name for remote in tree.repo.remotes])
    return "origin" if "origin" in names else next(iter(names), "")


def remote_url(tree: WorkTree) -> str:
    """The remote's URL without credentials; "" where there is no remote."""
    return tree.once("remote's URL", lambda: _remote_url(tree))


def _remote_url(tree: WorkTree) -> str:
    url = tree.repo.config_reader().get_value(f'remote "{remote_name(tree)}"', "url", "")
    return without_credentials(str(url))


def without_credentials(url: str) -> str:
    """Drops user and password of a web address; of an SSH one the password alone, as its user names no secret."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if not parts.scheme or not at:
        return url
    kept = "" if parts.scheme in {"http", "https"} else user.partition(":")[0] + "@"
    return parts._replace(netloc=kept + host).geturl()


def cached_clone(url: str, commit: str) -> Path:
    """The bare repository in the user's cache that has `commit` of `url`, fetched if it is missing.

    ProvenanceError if it could not be obtained. It never asks for a password.
    """
    git_dir = cache_dir() / "repos" / f"{hashlib.sha256(url.encode()).hexdigest()}.git"
    with exclusive(git_dir.with_suffix(".lock")):
        if git_dir.is_dir() and has_commit(git_dir, commit):
            return git_dir
        with mapped(str(git_dir)):
            git_dir.mkdir(exist_ok=True)
            reader(git_dir).init("--quiet", "--bare")  # may be repeated after an interruption
        _fetch(git_dir, url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if not has_commit(git_dir, commit):
            _fetch(git_dir, url, commit)  # one that no branch or tag reaches; servers may refuse
    return git_dir


def obtain(root: Path, commit: str) -> None:
    """Have a commit in the lab's own repository, fetched from its remote if it is missing, as in a clone elsewhere.

    Unreachable while the remote is away; ProvenanceError if it has not the commit. It never asks for a password.
    """
    with opened(root) as tree:
        git_dir, remote = tree.git_dir, remote_name(tree)
        if has_commit(git_dir, commit):
            return
        try:
            _fetch(git_dir, remote, f"+refs/heads/*:refs/remotes/{remote}/*", "+refs/tags/*:refs/tags/*")
        except ProvenanceError as error:
            raise Unreachable(error.message, error.hint) from error
        if not has_commit(git_dir, commit):
            _fetch(git_dir, remote, commit)


def _fetch(git_dir: Path, url: str, *references: str) -> None:
    unattended = {**UNATTENDED, **_ssh(git_dir), **os.environ}
    hint = f"Check the address, the commit and your access: git ls-remote {shlex.quote(url)}"
    with mapped(f"{url} cannot be fetched", hint):
        reader(git_dir).fetch("--quiet", "--no-tags", "--", url, *references, env=unattended)


def _ssh(git_dir: Path) -> Mapping[str, str]:
    """Nothing where the user says how git connects, as with a deploy key of a clone, which the variable would hide."""
    own = reader(git_dir).config("--get", "core.sshCommand", with_exceptions=False)
    return {} if own or "GIT_SSH" in os.environ else {"GIT_SSH_COMMAND": SSH}
