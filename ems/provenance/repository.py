"""Git as EMS reads it: the objects of a commit, the state of a working tree, clones of other repositories.

Everything runs the user's own git through GitPython; its exceptions leave here as ProvenanceError. It is imported when
it is used: its import fails on a machine without git. Folders are given to `git.Git` as Path, which it takes as they
are; in text it would expand `$NAME`.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ems.base.cache import cache_dir
from ems.base.errors import ProvenanceError
from ems.base.locks import exclusive

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


@dataclass(frozen=True)
class WorkTree:
    """The repository that a lab's folder lies in. `prefix`: the folder below the repository's top, "" or "a/b/"."""

    repo: git.Repo
    git: git.Git  # commands at the repository's top
    root: Path
    prefix: str
    head: str  # full hash

    @property
    def git_dir(self) -> Path:
        """Where the objects are: of a linked worktree, the main repository, which outlives it."""
        return Path(self.repo.common_dir).resolve()

    def below_top(self, file: Path) -> str:
        """The path of a file of the lab as git names it, from the repository's top; `../…` of one outside."""
        here = file.parent.resolve() / file.name  # git knows a symbolic link by its own path
        return posixpath.normpath(self.prefix + Path(os.path.relpath(here, self.root.resolve())).as_posix())


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


@contextmanager
def opened(root: Path) -> Iterator[WorkTree]:
    """The repository of the lab in `root`; ProvenanceError if there is none, or it has no commit."""
    with mapped(f"{root}"), _repo(root) as repo:
        if repo.working_tree_dir is None:
            raise ProvenanceError(f"{root} is a bare git repository: a lab needs its files.", "git clone it first.")
        top = Path(repo.working_tree_dir).resolve()
        # Without optional locks two commands at once never meet on index.lock.
        commands = _commands(top, GIT_OPTIONAL_LOCKS="0", GIT_LITERAL_PATHSPECS="1")
        below = root.resolve().relative_to(top).as_posix()
        yield WorkTree(repo, commands, root, "" if below == "." else f"{below}/", _head(commands, root))


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


def _commands(folder: Path, **environment: str) -> git.Git:
    import git

    commands = git.Git(folder)
    # A commit is what every clone has: `git replace` changes it in this one alone.
    commands.update_environment(GIT_NO_REPLACE_OBJECTS="1", **environment)
    return commands


def changes(tree: WorkTree, paths: list[str]) -> list[tuple[str, str]]:
    """(git's two letters, path from the top) of what differs from HEAD or is untracked, in `paths` from the top."""
    options = ("--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    listing = tree.git.status(*options, "--", *paths, strip_newline_in_stdout=False)
    return [(line[:2], line[3:]) for line in str(listing).split("\0") if line]


def ignored(tree: WorkTree, paths: list[str]) -> list[str]:
    """Files, and whole folders with a `/` at the end, below `paths` that git ignores; paths from the top."""
    options = ("--others", "--ignored", "--exclude-standard", "--directory", "-z")
    listing = tree.git.ls_files(*options, "--", *paths, strip_newline_in_stdout=False)
    return [path for path in str(listing).split("\0") if path]


def reader(git_dir: Path) -> git.Git:
    """Git commands that read the objects of one repository, wherever its working tree is."""
    commands = _commands(git_dir, GIT_LITERAL_PATHSPECS="1")
    commands.set_persistent_git_options(git_dir=str(git_dir))
    return commands


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


def link_targets(git_dir: Path, files: Iterable[CommittedFile]) -> dict[str, str]:
    """Where the symbolic links among `files` lead, as they say it, by their paths; read by one process."""
    links = [file for file in files if file.mode == SYMLINK]
    if not links:
        return {}
    with streaming(git_dir) as objects:
        targets = [objects.get_object_data(link.blob)[3] for link in links]
    return {link.path: target.decode("utf-8", "replace") for link, target in zip(links, targets, strict=True)}


def read_file(git_dir: Path, commit: str, path: str) -> bytes | None:
    """The content of `path`, from the top, at a commit; None if the commit has no such file.

    ProvenanceError if the repository does not have the commit.
    """
    found = [file for file in files(git_dir, commit, path) if file.path == path]
    return read_blob(git_dir, found[0].blob) if found else None


def remote_name(repo: git.Repo) -> str:
    """`origin`, or the first other remote; "" where there is none."""
    names = [remote.name for remote in repo.remotes]
    return "origin" if "origin" in names else next(iter(names), "")


def remote_url(repo: git.Repo) -> str:
    """The remote's URL without credentials; "" where there is no remote."""
    url = repo.config_reader().get_value(f'remote "{remote_name(repo)}"', "url", "")
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


def _fetch(git_dir: Path, url: str, *references: str) -> None:
    unattended = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"} | dict(os.environ)
    hint = f"Check the address, the commit and your access: git ls-remote {shlex.quote(url)}"
    with mapped(f"code.repo {url} cannot be fetched", hint):
        reader(git_dir).fetch("--quiet", "--no-tags", "--", url, *references, env=unattended)
