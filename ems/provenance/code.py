"""Which code an experiment runs: the exact commit, what of it is declared, and whether somebody else can get it.

Only `code.repo` causes network traffic. Files are taken from git's objects, never from the working tree.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ems.base.errors import Fault, ProvenanceError, StackFileError
from ems.base.messages import some
from ems.lab import repository
from ems.lab.objects import SUBMODULE, CommittedFile, Listing, has_commit
from ems.lab.repository import WorkTree
from ems.provenance import filters
from ems.stack import stackfile
from ems.stack.models import CodeSpec

__all__ = ["Code", "CommittedFile", "Source", "at_commit", "environment_source", "resolve", "stack_file_commit"]

_TOOLS = """
gitignore gitattributes gitmodules gitlab-ci.yml mailmap editorconfig pre-commit-config.yaml flake8 pylintrc ruff.toml
mypy.ini coveragerc codecov.yml readthedocs.yaml readthedocs.yml prettierrc prettierignore dockerignore envrc
"""
_TOOL_FOLDERS = "ems github gitlab vscode idea devcontainer ci circleci"
BEFORE = re.compile(r"(stacks|notebooks|docs)/.*|.*\.md", re.IGNORECASE | re.DOTALL)  # the default that held before
LEFT_OUT = re.compile(  # where nothing is declared: what is EMS's, what people read, what tools of programmers read
    rf"(stacks|notebooks|docs|environments|plugins|\.({'|'.join(_TOOL_FOLDERS.split())}))/.*|.*\.md|Pulumi\.yaml"
    rf"|(.*/)?\.({'|'.join(map(re.escape, _TOOLS.split()))})|(LICEN[CS]E|COPYING|NOTICE|AUTHORS|CITATION)[^/]*",
    re.IGNORECASE | re.DOTALL,
)
SHOWN = 10
NOT_CODE = "What of it is not code, list in .gitignore."
MADE = re.compile(r"(^|/)(\.[^/]*|__pycache__|node_modules|[^/]+\.egg-info)/?$|\.(pyc|pyo|o|so|aux|log)$")
CACHED = re.compile(r"(^|/)__pycache__/")  # what Python makes of the code, and makes anew where it is not
CONFLICTS = {"DD", "AU", "UD", "UA", "DU", "AA", "UU"}  # git's letters of files that a merge left open


@dataclass(frozen=True)
class Code:
    """The declared code at one commit."""

    repository: str  # remote URL without credentials, "" where there is none
    commit: str  # full hash
    tree: str  # SHA-256 over (mode, path, blob) of the files
    paths: tuple[str, ...]  # as declared, normalised
    git_dir: Path  # the repository whose objects are read
    files: tuple[CommittedFile, ...]  # sorted by path; paths from the lab's folder, or from the top of `code.repo`


class Problem(NamedTuple):
    """What keeps others from getting the same code, and the command or the change that fixes it."""

    what: str
    fix: str
    key: str = ""  # of the stack file, where one of its keys is to be corrected


class Source(NamedTuple):
    """Where the code is read: a repository's objects, a commit, and the folder below the repository's top."""

    git_dir: Path
    commit: str
    prefix: str


def resolve(
    lab: WorkTree, code: CodeSpec, *, environment: Sequence[str], stack_file: Path, remote_needed: bool
) -> Code:
    """The code that a stack file of the lab asks for.

    `environment`: what decides its environment, as `environment.sources` lists it. ProvenanceError names all that keeps
    others from getting the same, with the commands that fix it.
    """
    problems = list(_unclean(lab, code, environment, stack_file))
    if remote_needed and code.repo is None:
        commit = _source(lab, code).commit
        problems += lab.once(("unpushed", commit), lambda: list(_unpushed(lab, commit)))
    return _code(lab, code, problems, stack_file)


def at_commit(lab: WorkTree, code: CodeSpec, tree: str = "") -> Code:
    """The same for a commit that was resolved before, whatever has become of the working tree since.

    `tree`: the recorded one, by which code without declared paths is that of the default which held then.
    ProvenanceError if the commit could not be obtained any more.
    """
    found = _code(lab, code, [])
    before = as_before(lab, code, found) if tree not in {"", found.tree} else found
    return before if before.tree == tree else found


def as_before(lab: WorkTree, code: CodeSpec, found: Code) -> Code:
    """What was `found`, with the paths that an earlier EMS took by default: with declared paths, the same."""
    if code.paths:
        return found
    source = Source(found.git_dir, found.commit, "" if code.repo else lab.prefix)
    files = lab.once(("before", source), lambda: _declared(_listing(lab, source), source.prefix, (), BEFORE))
    return dataclasses.replace(found, tree=lab.once(("tree before", source), lambda: _tree(files)), files=files)


def environment_source(lab: WorkTree, code: Code) -> Source:
    """Where `environment.at` reads: the code's own commit; the lab's HEAD for the code of another repository."""
    return Source(lab.git_dir, code.commit if code.git_dir == lab.git_dir else lab.head, lab.prefix)


def stack_file_commit(lab: WorkTree, stack_file: Path) -> str:
    """Full hash of the last commit that changed the stack file; ProvenanceError if it was never committed."""
    path, content_path = lab.below_top(stack_file), lab.below_top(stack_file.resolve())
    if path == content_path:
        commits = [version.commit for version in repository.versions(lab, path)]
    else:
        commits = repository.changed_by(lab, 1, path, content_path)
    if not commits:
        raise _refusal([Problem(f"{path} is not committed.", _commit_command(lab, [path]))])
    return commits[0]


def ignored(lab: WorkTree, code: CodeSpec) -> list[str]:
    """Files and folders in the declared paths that git ignores, so that no job has them, but for what programs make."""
    if not code.paths or code.repo is not None:
        return []
    found = repository.ignored(lab, [posixpath.normpath(lab.prefix + path) for path in code.paths])
    return [path.removeprefix(lab.prefix) for path in found if not MADE.search(path)]


def _refusal(problems: Iterable[Problem]) -> ProvenanceError:
    problems = list(problems)
    fixes = dict.fromkeys(problem.fix for problem in problems)  # the same command is offered once
    return ProvenanceError("\n".join(problem.what for problem in problems), "\n".join(fixes))


class _Declared(NamedTuple):
    files: tuple[CommittedFile, ...]
    problems: tuple[Problem, ...]


def _code(lab: WorkTree, code: CodeSpec, problems: list[Problem], stack_file: Path | None = None) -> Code:
    source = _source(lab, code)
    paths = tuple(posixpath.normpath(path) for path in code.paths)
    declared = lab.once(("declared", source, paths), lambda: _examined(lab, source, paths))
    if problems := [*problems, *_absent(lab, code, source), *declared.problems]:
        raise _refusal(_located(problem, stack_file) for problem in problems)
    tree = lab.once(("tree", source, paths), lambda: _tree(declared.files))
    url = code.repo or repository.remote_url(lab)
    return Code(url, source.commit, tree, paths, source.git_dir, declared.files)


def _examined(lab: WorkTree, source: Source, paths: tuple[str, ...]) -> _Declared:
    files = _declared(_listing(lab, source), source.prefix, paths)
    return _Declared(files, tuple(_unshippable(lab, source, files)))


def _listing(lab: WorkTree, source: Source) -> Listing:
    return lab.objects(source.git_dir).listing(source.commit)


def _located(problem: Problem, stack_file: Path | None) -> Problem:
    """With file and line, where a key of the stack file is to be corrected."""
    if stack_file is None or not problem.key:
        return problem
    with suppress(StackFileError):  # whose faults are told by whoever reads it
        (fault,) = stackfile.locate([Fault(problem.key, problem.what)], stack_file)
        return problem._replace(what=str(fault))
    return problem


def _source(lab: WorkTree, code: CodeSpec) -> Source:
    return lab.once(("source", code.repo, code.commit), lambda: _found_source(lab, code))


def _found_source(lab: WorkTree, code: CodeSpec) -> Source:
    if code.repo is not None:
        if code.commit == "HEAD":
            hint = f"For the newest: git ls-remote {shlex.quote(code.repo)} HEAD"
            raise ProvenanceError(f"code.repo {code.repo} needs code.commit with a full hash: HEAD may move.", hint)
        return Source(repository.cached_clone(code.repo, code.commit), code.commit, "")
    if code.commit != "HEAD" and not has_commit(lab.git_dir, code.commit):
        raise _not_found(lab, code.commit)
    return Source(lab.git_dir, lab.head if code.commit == "HEAD" else code.commit, lab.prefix)


def _not_found(lab: WorkTree, commit: str) -> ProvenanceError:
    shallow = lab.git.rev_parse("--is-shallow-repository") == "true"
    why = "this is a shallow clone, which lacks older commits" if shallow else "this repository does not have it"
    fix = "git fetch --unshallow" if shallow else "git fetch --all, or correct code.commit in the stack file."
    return ProvenanceError(f"code.commit {commit} is not found: {why}.", fix)


def _declared(
    listing: Listing, prefix: str, paths: tuple[str, ...], left_out: re.Pattern[str] = LEFT_OUT
) -> tuple[CommittedFile, ...]:
    wanted = {place for path in paths for place in listing.places(prefix + path)}
    everything = (listing.files[place] for place in (sorted(wanted) if paths else listing.places(prefix.rstrip("/"))))
    files = (CommittedFile(file.path.removeprefix(prefix), file.mode, file.blob) for file in everything)
    return tuple(file for file in files if paths or not left_out.fullmatch(file.path))


def _tree(files: tuple[CommittedFile, ...]) -> str:
    listing = "".join(f"{file.mode} {file.path}\0{file.blob}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def _unclean(lab: WorkTree, code: CodeSpec, environment: Sequence[str], stack_file: Path) -> Iterator[Problem]:
    """What HEAD lacks of the stack file; for `commit: HEAD` also of the code; of the environment unless it is old."""
    stack_path, content_path = lab.below_top(stack_file), lab.below_top(stack_file.resolve())
    if content_path.startswith("../"):
        what = f"{stack_path} is a symbolic link to {stack_file.resolve()}, outside this repository."
        yield Problem(what, f"Put the file itself there: cp --remove-destination {content_path} {stack_path}")
        return
    paths = [posixpath.normpath(lab.prefix + path) for path in environment]
    needed = [path for path in paths if not path.startswith("../")]  # of one outside, the reading of the lock speaks
    found = repository.changes(lab, [*_watched(lab, code, needed), stack_path])
    changed = [
        (letters, path)
        for letters, path in found
        if path != content_path
        and not (letters == "??" and CACHED.search(path))
        and (path == stack_path or _is_in(path, needed) or _is_wanted(lab, path, code))
    ]
    changed += _stack_file_change(lab, content_path, stack_file)
    conflicts = [path for letters, path in found if letters in CONFLICTS]
    if conflicts:
        fix = "Resolve the conflicts of your merge first, as `git status` lists them; git merge --abort takes it back."
        yield Problem(_changed_listing(lab.head, changed or [("UU", path) for path in conflicts]), fix)
    elif changed:
        others = any(letters == "??" and path != content_path for letters, path in changed)
        fix = _commit_command(lab, [path for _, path in changed])
        yield Problem(_changed_listing(lab.head, changed), f"{fix}\n{NOT_CODE}" if others else fix)


def _watched(lab: WorkTree, code: CodeSpec, environment: list[str]) -> list[str]:
    """Paths, from the top, that git is asked about."""
    if code.repo is not None:
        return environment
    paths = [posixpath.normpath(lab.prefix + path) for path in (code.paths or (".",))]
    return [*paths, *environment] if code.commit == "HEAD" else []


def _is_in(path: str, places: Iterable[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def _is_wanted(lab: WorkTree, path: str, code: CodeSpec) -> bool:
    """Whether what is at `path`, from the top, is code of the lab."""
    if code.repo is not None or not path.startswith(lab.prefix):
        return False
    below = path.removeprefix(lab.prefix)
    return _is_in(below, map(posixpath.normpath, code.paths)) if code.paths else not LEFT_OUT.fullmatch(below)


def _stack_file_change(lab: WorkTree, path: str, stack_file: Path) -> list[tuple[str, str]]:
    """[] if commit, index and file say the same but for what Pulumi writes by itself."""
    committed = lab.objects().listing(lab.head).file(path)
    if committed is None:
        return [("A " if repository.staged(lab, path) else "??", path)]
    if not stack_file.is_file():
        return [(" D", path)]
    blobs = [committed.blob, repository.staged(lab, path)]
    versions = {stack_file.read_bytes(), *(lab.objects().read(blob) if blob else b"" for blob in blobs)}
    said, *others = map(stackfile.meaning, versions) if len(versions) > 1 else [None]
    return [] if all(other == said for other in others) else [(" M", path)]


def _changed_listing(head: str, changed: list[tuple[str, str]]) -> str:
    lines = [f"  {letters} {path}" for letters, path in changed[:SHOWN]]
    if len(changed) > SHOWN:
        lines.append(f"  and {len(changed) - SHOWN} more")
    return "\n".join([f"Not as in the last commit ({head[:12]}), so nobody else could run this:", *lines])


def _commit_command(lab: WorkTree, paths: list[str]) -> str:
    """Names the files while they are few, else their folders; as seen from the working directory."""
    named = paths if len(paths) <= SHOWN else sorted({path.partition("/")[0] for path in paths})
    words = (shlex.quote(lab.as_seen(path)) for path in named)
    return f"git add {' '.join(words)} && git commit"


def _absent(lab: WorkTree, code: CodeSpec, source: Source) -> Iterator[Problem]:
    """Paths that the commit does not have; of those that only wait to be committed, `_unclean` speaks."""
    listing = _listing(lab, source)
    for index, declared in enumerate(code.paths):
        path = posixpath.normpath(declared)
        if listing.places(source.prefix + path):
            continue
        if code.repo is None and code.commit == "HEAD" and repository.changes(lab, [source.prefix + path]):
            continue
        near = difflib.get_close_matches(path, _known_files(source, listing), n=3, cutoff=0.5)
        hint = f"Nearest: {', '.join(near)}." if near else "Commit it, or correct code.paths in the stack file."
        key = f"ems:experiment.code.paths[{index}]"
        yield Problem(f"code.paths has {path!r}: not in commit {source.commit[:12]}.", hint, key)


def _known_files(source: Source, listing: Listing) -> set[str]:
    """All files and folders that code may have."""
    known = set[str]()
    for place in listing.places(source.prefix.rstrip("/")):
        path = listing.files[place].path.removeprefix(source.prefix)
        while path and path not in known:
            known.add(path)
            path = posixpath.dirname(path)
    return known


def _unshippable(lab: WorkTree, source: Source, files: tuple[CommittedFile, ...]) -> Iterator[Problem]:
    """Entries whose content git does not hold, or that cannot be unpacked elsewhere."""
    objects = lab.objects(source.git_dir)
    modules = [file.path for file in files if file.mode == SUBMODULE]
    yield from _problem(
        modules,
        "submodules, whose files are in another repository",
        "Leave them out of code.paths, or copy them in: git rm SUBMODULE && git subtree add --prefix SUBMODULE URL REF",
    )
    yield from _problem(
        [file.path.encode("utf-8", "replace").decode() for file in files if not _is_text(file.path)],
        "files whose names are not UTF-8",
        "git mv them to names in UTF-8.",
    )
    yield from _problem(
        [path for path, target in objects.link_targets(files).items() if _leaves(path, target)],
        "symbolic links that point outside the code",
        "Point them, relative, to a file of the repository, or leave them out of code.paths.",
    )
    for what, paths, fix in filters.converted(objects, source.commit, source.prefix, files):
        yield from _problem(paths, what, fix)


def _problem(paths: Sequence[str], what: str, fix: str) -> Iterator[Problem]:
    if paths:
        yield Problem(f"The code paths have {what}: {some(paths)}.", fix, "ems:experiment.code.paths")


def _is_text(path: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in path)


def _leaves(link: str, target: str) -> bool:
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(link), target))
    return reached.startswith("/") or reached.split("/")[0] == ".."


def _unpushed(lab: WorkTree, commit: str) -> Iterator[Problem]:
    remote = repository.remote_name(lab)
    if not remote:
        fix = "git remote add origin URL && git push -u origin HEAD"
        yield Problem("This repository has no remote, from which a place other than this one gets its code.", fix)
    elif not lab.git.for_each_ref("--count=1", f"--contains={commit}", "refs/remotes"):
        branch = lab.git.branch("--show-current") if commit == lab.head else ""
        short = commit[:12]
        fix = f"git push -u {remote} {branch}" if branch else f"git push {remote} {short}:refs/heads/ems-{short}"
        yield Problem(f"Commit {short} is not on the remote {remote!r}, as far as this clone knows.", fix)
