"""`ems init` where something is already: it adds what a lab lacks, and nothing else."""

from __future__ import annotations

import subprocess

import pytest

from ems import clusters
from ems import lab as laboratory
from ems.base.errors import ProvenanceError, UserError
from ems.cli import adopting
from ems.engine import preflight
from ems.lab.place import repository_of
from ems.lab.stacks import StackFiles
from tests.cli.running import execute, files, run
from tests.conftest import commit

OWN = ["Pulumi.yaml", "plugins/pulumi-resource-ems", "stacks/Pulumi.lab.yaml", "stacks/__main__.py"]
SHA = "0" * 64


@pytest.fixture
def repository(tmp_path):
    """A repository with code and a pinned environment."""
    root = tmp_path / "study"
    root.mkdir()
    git(root, "init", "--quiet")
    (root / "train.py").write_text("print(1)\n")
    (root / ".gitignore").write_bytes(b"*.log\r\ndata/")
    (root / "requirements.txt").write_text(f"six==1.17.0 --hash=sha256:{SHA}\n")
    commit(root)
    return root


def git(root, *words):
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def adopt(root, name=""):
    return adopting.carry_out(adopting.plan(root.resolve(), name))


def untracked(root):
    return git(root, "ls-files", "--others", "--exclude-standard").split()


def test_a_repository_becomes_a_lab_by_files_of_its_own_and_a_line(repository):
    head, before = git(repository, "rev-parse", "HEAD"), files(repository)
    done = run("init", str(repository), "--yes")
    assert "ems new NAME --command" in done.stdout and "Nothing is committed" in done.stdout
    after = files(repository)
    assert untracked(repository) == OWN and git(repository, "rev-parse", "HEAD") == head
    changed = {name for name in before if before[name] != after.get(name) and not name.startswith(".git/")}
    assert changed == {".gitignore"}
    assert (repository / ".gitignore").read_bytes() == b"*.log\r\ndata/\r\n.ems/\r\n"
    commit(repository)
    lab = laboratory.find(repository)
    assert lab.name == "study" and preflight.report(StackFiles(lab, clusters.settings()), "lab").problems == ()


def test_again_it_says_what_is_there_and_puts_back_what_is_not(repository):
    adopt(repository)
    before = files(repository)
    done = run("init", str(repository))
    assert "nothing is missing" in done.stdout and all(name in done.stdout for name in OWN)
    assert files(repository) == before
    (repository / "stacks/__main__.py").unlink()
    lab_id = laboratory.read(repository).id
    run("init", str(repository), "--yes")
    assert laboratory.read(repository).id == lab_id and untracked(repository) == OWN


def test_unasked_nothing_is_added(repository):
    before = files(repository)
    done = execute("init", str(repository))
    assert done.returncode == 2 and "Pulumi.yaml" in done.stdout and "--yes" in done.stderr
    assert files(repository) == before


def test_a_folder_of_a_repository_becomes_a_lab_and_no_repository_is_nested(repository):
    for folder in (repository / "analysis/lab", repository / "empty"):
        folder.mkdir(parents=True)
        run("init", str(folder), "--yes")
        assert not (folder / ".git").exists() and laboratory.find(folder).root == folder
        assert (folder / ".gitignore").read_text() == ".ems/\n"
    run("init", str(repository / "not-there-yet"), "--yes")
    assert not (repository / "not-there-yet/.git").exists()
    assert git(repository / "empty", "rev-parse", "--show-toplevel") == str(repository)


def test_a_lab_within_a_lab_is_refused_with_the_way_out(repository):
    adopt(repository)
    with pytest.raises(UserError, match=f"is in the lab {repository} already") as caught:
        adopting.plan(repository / "deeper" / "down")
    assert f"cd {repository}" in caught.value.hint


def test_a_folder_without_git_gets_a_repository_with_nothing_committed(tmp_path):
    root = tmp_path / "plain"
    root.mkdir()
    (root / "train.py").write_text("print(1)\n")
    refused = execute("init", str(root))
    assert refused.returncode == 2 and f"git init {root}" in refused.stdout and not (root / ".git").exists()
    run("init", str(root), "--yes")
    assert "train.py" in untracked(root) and "environments/main/python-version" in untracked(root)
    assert subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, check=False).returncode != 0


def test_a_repository_that_ignores_the_folder_has_nothing_to_do_with_it(repository):
    (repository / "data").mkdir()
    assert repository_of(repository) == repository == repository_of(repository / "other/deeper")
    assert repository_of(repository / "data/lab") is None
    run("init", str(repository / "data/lab"))
    assert git(repository / "data/lab", "rev-list", "--count", "HEAD") == "1"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("Pulumi.yaml", "name: web\nruntime: go\n", "Pulumi.yaml is there, and another Pulumi project's"),
        ("stacks/__main__.py", "print(1)\n", "stacks/__main__.py is there, and not EMS's"),
        ("stacks", "a file\n", "stacks is a file"),
        ("plugins", "a file\n", "plugins is a file"),
        ("environments", "a file\n", "environments is a file"),
        ("stacks/Pulumi.lab.yaml/x", "", "stacks/Pulumi.lab.yaml is a folder"),
    ],
)
def test_taken_names_are_told_with_the_way_out(name, content, said, repository):
    file = repository / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    before = files(repository)
    done = execute("init", str(repository), "--yes")
    assert done.returncode == 2 and said in done.stderr and f"ems init {repository}/lab" in done.stderr
    assert files(repository) == before
    file.unlink()


def test_the_way_out_is_one(repository):
    (repository / "Pulumi.yaml").write_text("name: web\nruntime: go\n")
    commit(repository)
    run("init", str(repository / "lab"), "--yes")
    assert laboratory.find(repository / "lab").root == repository / "lab"


def test_files_that_git_ignores_are_told(repository):
    (repository / ".gitignore").write_text("plugins/\n.ems\n")
    done = run("init", str(repository), "--yes")
    assert "git ignores plugins/pulumi-resource-ems" in done.stdout and "git add --force" in done.stdout
    assert (repository / ".gitignore").read_text() == "plugins/\n.ems\n"  # which has what a lab needs


def test_a_file_is_no_folder(repository):
    assert "is not a folder" in execute("init", str(repository / "train.py")).stderr


class TestPackages:
    """What `ems init` makes of the environment that is there."""

    def test_a_lock_is_left_where_it_is(self, repository):
        found = adopting.plan(repository)
        assert not found.lock and not any("environments" in str(path) for path in found.texts)
        assert "requirements.txt, to which" in found.notes[0]

    def test_requirements_without_hashes_are_locked(self, repository):
        (repository / "requirements.txt").write_text("six\n")
        (repository / ".python-version").write_text("3.12\n")
        done = run("init", str(repository), "--yes")
        folder = repository / "environments/main"
        assert "environments/main/requirements.txt" in done.stdout
        assert (folder / "requirements.in").read_text() == "-r ../../requirements.txt\n"
        assert (folder / "python-version").read_text() == "3.12\n"
        assert "--hash=sha256:" in (folder / "requirements.txt").read_text()
        assert adopting.plan(repository).is_done

    def test_what_cannot_be_locked_can_be_tried_again(self, repository):
        (repository / "requirements.txt").write_text("no-such-package-of-anybody==99\n")
        done = execute("init", str(repository), "--yes", UV_OFFLINE="1")
        assert done.returncode == 3 and "cannot be locked" in done.stderr
        found = adopting.plan(repository)
        assert found.lock == "main" and not found.texts and not found.is_done

    def test_lines_that_name_the_repository_itself_are_left_out(self, repository):
        (repository / "requirements.txt").write_text("six\n-e .\n")
        found = adopting.plan(repository)
        text = found.texts[repository / "environments/main/requirements.in"]
        assert text == "# Taken from requirements.txt.\nsix\n" and "-e ." in found.notes[-1]

    def test_of_conda_the_pip_part_is_taken(self, repository):
        (repository / "requirements.txt").unlink()
        conda = "dependencies:\n  - python=3.12\n  - pip\n  - pip:\n    - six>=1.16\n"
        (repository / "environment.yml").write_text(conda)
        found = adopting.plan(repository)
        assert found.texts[repository / "environments/main/requirements.in"].endswith("six>=1.16\n")
        assert found.texts[repository / "environments/main/python-version"] == "3.12\n"

    def test_what_conda_alone_has_is_named(self, repository):
        (repository / "requirements.txt").unlink()
        conda = "dependencies:\n  - conda-forge::blas[build=mkl]\n  - Numpy>=2\n  - r-base\n  - pip: [six]\n"
        (repository / "environment.yml").write_text(conda)
        found = adopting.plan(repository)
        assert "environment.yml: blas, numpy, r-base come from conda alone" in found.notes[0]
        assert "ems env lock main --from environment.yml" in found.notes[-1] and not found.lock

    def test_a_project_without_a_lock_is_told_to_make_one(self, repository):
        (repository / "requirements.txt").unlink()
        (repository / "pyproject.toml").write_text('[project]\nname = "x"\ndependencies = ["six"]\n')
        assert adopting.plan(repository).notes == ("Packages: pyproject.toml has no lock; `uv lock` writes one.",)

    def test_a_lock_further_up_is_found(self, repository):
        (repository / "uv.lock").touch()
        assert "../uv.lock" in adopting.plan(repository / "lab").notes[0]


class TestLocking:
    """`ems env lock NAME --from FILE`."""

    def test_requirements_are_locked_under_a_name(self, repository, monkeypatch):
        adopt(repository)
        (repository / "wishes.txt").write_text("six\n")
        monkeypatch.chdir(repository)
        run("env", "lock", "fit", "--from", "wishes.txt")
        folder = repository / "environments/fit"
        assert (folder / "requirements.in").read_text() == "-r ../../wishes.txt\n"
        assert "six==" in (folder / "requirements.txt").read_text()
        run("env", "lock", "fit", "--from", "wishes.txt")
        run("env", "check", "fit")

    def test_what_is_there_is_kept(self, repository, monkeypatch):
        adopt(repository)
        (repository / "environments/fit").mkdir(parents=True)
        (repository / "environments/fit/requirements.in").write_text("mine\n")
        monkeypatch.chdir(repository)
        done = execute("env", "lock", "fit", "--from", "requirements.txt")
        assert done.returncode == 2 and "says something else" in done.stderr
        assert (repository / "environments/fit/requirements.in").read_text() == "mine\n"

    def test_what_conda_alone_has_is_an_error(self, repository, monkeypatch):
        adopt(repository)
        (repository / "environment.yml").write_text("dependencies: [blas, pip]\n")
        monkeypatch.chdir(repository)
        done = execute("env", "lock", "fit", "--from", "environment.yml")
        assert done.returncode == ProvenanceError.exit_code and "blas" in done.stderr
        assert not (repository / "environments/fit").exists()


def test_a_folder_that_is_not_there_becomes_a_lab_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "Made the lab new in" in run("init", "deep/down/new").stdout
    root = tmp_path / "deep/down/new"
    assert git(root, "rev-list", "--count", "HEAD") == "1" and laboratory.find(root).root == root
    (tmp_path / "file").write_text("")
    refused = run("init", "file/new", expect=2).stderr
    assert "file/new cannot be made: Not a directory" in refused.replace("\n", " ") and "ems init DIR" in refused
