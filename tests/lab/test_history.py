"""What git is asked once for all files is what it says of each: commits that changed one, and the state of the tree."""

from __future__ import annotations

import itertools
import subprocess

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ems.lab import history, objects, repository
from ems.lab.repository import work_tree

FILES = ("stacks/a", "stacks/b", "stacks/deep/c", "elsewhere")
HISTORIES = st.lists(
    st.tuples(
        st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True),  # parents: so many commits before
        st.dictionaries(st.sampled_from(FILES), st.sampled_from(["", "1", "2"]), max_size=3),  # "": removed
        st.integers(0, 3),  # later than the commit before; two may be of the same second
    ),
    min_size=1,
    max_size=14,
)


def git(root, *words, data=None):
    done = subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, input=data)
    return done.stdout.decode()


def imported(root, commits):
    """A repository with these commits; of a merge, the files are those of its first parent but for what it changes."""
    git(root, "init", "--quiet", "--initial-branch", "main")
    lines, seconds = [], 1_700_000_000
    for number, (before, changes, later) in enumerate(commits, start=1):
        seconds += later
        parents = [number - back for back in before if number - back > 0]
        lines += [f"commit refs/heads/main\nmark :{number}\ncommitter A <a@example.org> {seconds} +0000\ndata 0"]
        lines += [f"{'from' if not place else 'merge'} :{parent}" for place, parent in enumerate(parents)]
        lines += ["deleteall"] if not parents else []
        for path, text in changes.items():
            lines += [f"M 100644 inline {path}\ndata {len(text)}\n{text}" if text else f"D {path}"]
    git(root, "fast-import", "--quiet", "--force", data="\n".join([*lines, ""]).encode())


def asked_alone(root, path):
    commits = git(root, "rev-list", "-2", "HEAD", "--", path).split()
    found = [[file.blob for file in objects.files(root / ".git", commit, path)] for commit in commits]
    return [(commit, *(blobs or [""])) for commit, blobs in zip(commits, found, strict=True)]


@pytest.mark.parametrize("near", [2, 1000])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commits=HISTORIES)
@example(commits=[([1], {FILES[0]: "1"}, 1), ([1], {FILES[0]: "2"}, 1), ([2], {FILES[0]: "2"}, 1), ([1, 2], {}, 1)])
def test_the_commits_that_changed_each_file_are_those_that_git_names_for_it_alone(near, commits, tmp_path_factory):
    root = tmp_path_factory.mktemp("repository")
    imported(root, commits)
    with pytest.MonkeyPatch.context() as patch, repository.opened(root) as tree:
        patch.setattr(history, "NEAR", near)
        for path in FILES:
            assert repository.versions(tree, path) == asked_alone(root, path)


@pytest.fixture
def untidy(tmp_path):
    """A lab in a subfolder, with files that were changed, staged, removed, added, ignored, and some as committed."""
    root = tmp_path / "top"
    files = [
        "lab/a/one.py",
        "lab/a/two.py",
        "lab/a/deep/three.py",
        "lab/b/one.py",
        "lab/ab.py",
        "lab/é [x]*.py",
        "out.py",
    ]
    ignored = ["lab/a/data/x", "lab/a/deep/y.log", "lab/b/data/z/x", "lab/w.log", "data/x"]
    for name in (*files, *ignored):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / ".gitignore").write_text("data/\n*.log\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "First")
    for name in ("lab/a/one.py", "lab/ab.py", "out.py", "lab/é [x]*.py"):
        (root / name).write_text("changed")
    for name in ("lab/a/new/four.py", "lab/new.py", "new.py", "lab/b/staged.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("new")
    (root / "lab/a/deep/three.py").unlink()
    git(root, "add", "lab/ab.py", "lab/b/staged.py")
    return root


SOME = [
    "lab",
    "lab/a",
    "lab/a/deep",
    "lab/a/one.py",
    "lab/ab.py",
    "lab/b",
    "lab/é [x]*.py",
    "lab/none",
    "lab/a/data",
    "out.py",
]


@pytest.mark.parametrize("within", ["lab", "."])
def test_what_differs_in_some_paths_is_the_same_part_of_what_differs_at_all(untidy, within):
    for paths in itertools.chain(itertools.combinations(SOME, 1), itertools.combinations(SOME, 2)):
        with repository.opened(untidy / within) as asked_at_once, repository.opened(untidy / within) as alone:
            assert repository.changes(asked_at_once, list(paths)) == repository._changes(alone, paths)
            found = [path for path in repository.ignored(asked_at_once, list(paths)) if path not in {"lab/a/data/"}]
            assert found == [path for path in repository._ignored(alone, paths) if path != "lab/a/data/"]


def test_a_moment_stays_as_it_was_and_the_next_one_has_what_changed_since(untidy):
    now = work_tree(untidy / "lab")
    before = repository.changes(now, ["lab/b"])
    (untidy / "lab/b/one.py").write_text("edited")
    assert repository.changes(now, ["lab/b"]) == before == [("A ", "lab/b/staged.py")]
    assert (" M", "lab/b/one.py") in repository.changes(work_tree(untidy / "lab"), ["lab/b"])
