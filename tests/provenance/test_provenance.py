"""The code of an experiment, found in real git repositories."""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ems.base.errors import ProvenanceError, Unreachable
from ems.lab import objects, repository
from ems.lab.repository import work_tree
from ems.provenance import code as provenance
from ems.stack.models import CodeSpec
from tests.provenance.labs import FILES, commit, git, make_lab, names, refusal, resolve, write

pytestmark = pytest.mark.usefixtures("own_git_and_cache")


def test_default_paths_leave_out_what_is_not_of_the_experiment(lab):
    left_out = [
        "Pulumi.yaml",
        "LICENSE",
        "licence.txt",
        "COPYING",
        "CITATION.cff",
        ".pre-commit-config.yaml",
        ".mypy.ini",
    ]
    left_out += [
        ".github/ci.yml",
        ".vscode/settings.json",
        "plugins/pulumi-resource-ems",
        "environments/other/lock.txt",
    ]
    left_out += ["experiments/.gitignore", ".mypy.ini", ".pre-commit-config.yaml", "docs/a\nb"]
    kept = [
        "store/.hidden",
        ".config.json",
        "licensing.py",
        "src/docs/a.txt",
        "src/LICENSE",
        "environments.py",
        "x.mdx",
    ]
    write(lab, dict.fromkeys([*left_out, *kept], "x"))
    commit(lab)
    code = resolve(lab)
    assert names(code) == sorted([*kept, "experiments/fit.py"])
    assert code.commit == git(lab, "rev-parse", "HEAD")
    assert code.repository == ""
    assert len(code.tree) == 64


def test_declared_paths_are_all_that_is_taken(lab):
    code = resolve(lab, paths=["./experiments/", "README.md"])
    assert names(code) == ["README.md", "experiments/fit.py", "experiments/notes.md"]
    assert code.paths == ("experiments", "README.md")


def test_a_declared_path_takes_no_neighbour_of_the_same_beginning(lab):
    write(lab, {"experiments2/other.py": "pass\n"})
    commit(lab)
    assert names(resolve(lab, paths=["experiments"])) == ["experiments/fit.py", "experiments/notes.md"]


def test_an_absent_path_is_named_with_the_nearest(lab):
    text = refusal(lab, paths=["experiment/fit.py", "experiments"])
    assert "'experiment/fit.py': not in commit" in text
    assert "Nearest: experiments/fit.py" in text


def test_no_repository_offers_to_make_one(tmp_path):
    (tmp_path / "bare folder").mkdir()
    text = refusal(tmp_path / "bare folder")
    assert "not in a git repository" in text
    assert "init && git -C" in text and "commit -m" in text


def test_no_commit_yet(tmp_path):
    folder = tmp_path / "young"
    folder.mkdir()
    git(folder, "init", "--quiet")
    text = refusal(folder)
    assert "no commit yet" in text and "add . && git" in text


def test_a_commit_that_is_not_there(lab):
    text = refusal(lab, commit="1" * 40)
    assert "1" * 40 in text and "does not have it" in text and "git fetch --all" in text


def test_a_shallow_clone_has_its_commit_and_says_how_to_get_older_ones(lab, tmp_path):
    old = git(lab, "rev-parse", "HEAD")
    write(lab, {"experiments/fit.py": "print(5)\n"})
    new = commit(lab)
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{lab}", "shallow")
    assert resolve(tmp_path / "shallow").commit == new
    assert resolve(tmp_path / "shallow").tree == resolve(lab).tree
    text = refusal(tmp_path / "shallow", commit=old)
    assert "shallow clone" in text and "git fetch --unshallow" in text


def test_an_older_commit_comes_from_git_whatever_the_working_tree_says(lab):
    old = resolve(lab)
    write(lab, {"experiments/fit.py": "print(6)\n", "experiments/second.py": ""})
    commit(lab)
    write(lab, {"experiments/fit.py": "unfinished", "environments/small/requirements.txt": "unfinished"})
    assert resolve(lab, commit=old.commit) == old
    stack = lab / "stacks/Pulumi.fit.yaml"
    stack.write_text(stack.read_text().replace("Fit", "Other"))
    assert " M stacks/Pulumi.fit.yaml" in refusal(lab, commit=old.commit)
    assert provenance.at_commit(work_tree(lab), CodeSpec(commit=old.commit)) == old


def test_detached_head_and_worktree(lab, tmp_path):
    expected = resolve(lab)
    git(lab, "worktree", "add", "--quiet", "--detach", tmp_path / "linked")
    found = resolve(tmp_path / "linked")
    assert found == expected
    assert found.git_dir == lab / ".git"


def test_a_lab_in_a_subfolder_of_a_repository(tmp_path, lab):
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "--quiet")
    write(outer, {f"group/lab/{name}": content for name, content in FILES.items()} | {"elsewhere.py": "pass\n"})
    commit(outer)
    write(outer, {"unfinished.py": ""})
    inner = resolve(outer / "group/lab")
    assert inner.files == resolve(lab).files
    assert inner.tree == resolve(lab).tree
    source = provenance.environment_source(work_tree(outer / "group/lab"), inner)
    assert source == (outer / ".git", inner.commit, "group/lab/")
    write(outer, {"group/lab/experiments/fit.py": "print(7)\n"})
    assert " M group/lab/experiments/fit.py" in refusal(outer / "group/lab")


def test_names_with_spaces_and_letters_of_all_kinds(lab):
    odd = ["experiments/mit Leerzeichen.py", "experiments/größe 日本.py", "experiments/a'b\"c.py", "experiments/-x.py"]
    write(lab, dict.fromkeys(odd, "pass\n"))
    assert all(name in refusal(lab) for name in odd)
    commit(lab)
    assert set(odd) <= set(names(resolve(lab)))


def test_a_name_that_is_not_utf8_is_refused(lab):
    blob = git(lab, "rev-parse", "HEAD:README.md")
    line = f"100644 {blob} 0\texperiments/".encode() + b"caf\xe9.py\n"
    subprocess.run(["git", "update-index", "--index-info"], cwd=lab, input=line, check=True)
    git(lab, "commit", "--quiet", "--message", "Odd name")
    assert "not UTF-8: experiments/caf?.py" in refusal(lab, commit=git(lab, "rev-parse", "HEAD"))


def test_submodules_are_named(lab, tmp_path):
    make_lab(tmp_path / "library")
    git(lab, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", tmp_path / "library", "vendor/library")
    commit(lab)
    text = refusal(lab)
    assert "submodules" in text and "vendor/library" in text and "git subtree add" in text
    assert names(resolve(lab, paths=["experiments"])) == ["experiments/fit.py", "experiments/notes.md"]


def test_git_lfs_pointers_are_named(lab):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    write(lab, {"experiments/weights.bin": pointer, "experiments/small.bin": "x"})
    commit(lab)
    assert "experiments/weights.bin" in names(resolve(lab))  # without the attribute it is a file like others
    write(lab, {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n"})
    commit(lab)
    text = refusal(lab, commit=git(lab, "rev-parse", "HEAD"))
    assert "Git LFS" in text and "experiments/weights.bin" in text and "small.bin" not in text
    assert resolve(lab, commit=git(lab, "rev-parse", "HEAD"), paths=["experiments/fit.py"]).files


@pytest.mark.parametrize("where", [".gitattributes", ".git/info/attributes", "global"])
def test_files_under_a_filter_that_changes_them_are_named(lab, where, tmp_path):
    write(lab, {"experiments/secret.key": "x", "experiments/look.ipynb": "{}"})
    commit(lab)
    attributes = tmp_path / "attributes" if where == "global" else lab / where
    git(lab, "config", "core.attributesFile", tmp_path / "attributes")
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text("*.key filter=crypt\n*.ipynb filter=strip\n*.bin filter=lfs\n")
    assert "experiments/secret.key" in names(resolve(lab, commit=commit(lab)))  # nothing here changes it
    git(lab, "config", "filter.crypt.smudge", "rev")
    git(lab, "config", "filter.strip.clean", "cat")
    git(lab, "config", "filter.strip.smudge", "cat")
    text = refusal(lab, commit=git(lab, "rev-parse", "HEAD"))
    assert "git filter 'crypt'" in text and "experiments/secret.key" in text and "look.ipynb" not in text
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    write(lab, {"experiments/weights.bin": pointer})
    text = refusal(lab, commit=commit(lab))
    assert "Git LFS" in text and "experiments/weights.bin" in text


def test_files_in_an_encoding_of_the_working_tree_are_named(lab):
    (lab / ".gitattributes").write_text("*.u16 working-tree-encoding=UTF-16\n")
    (lab / "experiments/table.u16").write_bytes("é".encode("utf-16"))
    text = refusal(lab, commit=commit(lab))
    assert "encoding" in text and "experiments/table.u16" in text and "fit.py" not in text


def test_a_replaced_object_counts_as_what_every_clone_has(lab):
    before = resolve(lab, commit=git(lab, "rev-parse", "HEAD"))
    write(lab, {"experiments/fit.py": "print('another')\n"})
    other = git(lab, "hash-object", "-w", "experiments/fit.py")
    git(lab, "replace", git(lab, "rev-parse", "HEAD:experiments/fit.py"), other)
    git(lab, "checkout", "--quiet", "--force", "HEAD", "--", "experiments/fit.py")
    assert resolve(lab, commit=git(lab, "rev-parse", "HEAD")) == before
    (file,) = [each for each in before.files if each.path == "experiments/fit.py"]
    assert objects.read_blob(before.git_dir, file.blob) == b"print(1)\n"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../elsewhere"])
def test_a_link_that_leaves_the_code_is_refused(lab, target):
    (lab / "experiments/inside").symlink_to("../environments")
    commit(lab)
    assert "experiments/inside" in names(resolve(lab))
    (lab / "experiments/outside").symlink_to(target)
    commit(lab)
    text = refusal(lab)
    assert "symbolic links" in text and "experiments/outside" in text and "inside" not in text


def test_a_commit_must_be_on_the_remote_where_that_is_needed(lab, tmp_path):
    git(tmp_path, "init", "--quiet", "--bare", "hub.git")
    git(lab, "remote", "add", "origin", tmp_path / "hub.git")
    assert resolve(lab).repository == str(tmp_path / "hub.git")
    text = refusal(lab, remote_needed=True)
    assert "git push -u origin main" in text
    git(lab, "push", "--quiet", "-u", "origin", "main")
    assert resolve(lab, remote_needed=True).commit == git(lab, "rev-parse", "HEAD")
    git(lab, "checkout", "--quiet", "--detach")
    write(lab, {"experiments/fit.py": "print(8)\n"})
    short = commit(lab)[:12]
    assert f"git push origin {short}:refs/heads/ems-{short}" in refusal(lab, remote_needed=True)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:secret@example.org/lab.git", "https://example.org/lab.git"),
        ("https://token@example.org:8443/lab.git", "https://example.org:8443/lab.git"),
        ("ssh://git:secret@example.org/lab.git", "ssh://git@example.org/lab.git"),
        ("git@example.org:group/lab.git", "git@example.org:group/lab.git"),
        ("https://example.org/lab.git", "https://example.org/lab.git"),
    ],
)
def test_a_repository_is_recorded_without_credentials(lab, url, clean):
    git(lab, "remote", "add", "upstream", url)
    assert resolve(lab).repository == clean


def test_attributes_of_a_lab_in_a_subfolder_are_those_of_its_own_files(tmp_path, own_git_and_cache):
    outer = tmp_path / "outer"
    outer.mkdir()
    git(outer, "init", "--quiet")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    files = FILES | {"experiments/weights.bin": pointer, ".gitattributes": "*.bin filter=lfs\n"}
    write(outer, {f"group/lab/{name}": content for name, content in files.items()})
    commit(outer)
    assert "kept by Git LFS" in refusal(outer / "group/lab")


def test_code_of_another_repository_is_fetched_once(lab, tmp_path):
    other = make_lab(tmp_path / "other")
    write(other, {"model/core.py": "pass\n"})
    wanted = commit(other)
    git(other, "reset", "--quiet", "--hard", "HEAD~1")
    git(other, "branch", "side", wanted)
    write(lab, {"experiments/unfinished.py": ""})  # of no interest: the code is elsewhere
    code = resolve(lab, repo=f"file://{other}", commit=wanted, paths=["model"], remote_needed=True)
    assert names(code) == ["model/core.py"]
    assert code.repository == f"file://{other}"
    assert provenance.environment_source(work_tree(lab), code).commit == git(lab, "rev-parse", "HEAD")
    other.rename(tmp_path / "gone")
    assert resolve(lab, repo=f"file://{other}", commit=wanted, paths=["model"]) == code
    text = refusal(lab, repo=f"file://{other}", commit="2" * 40)
    assert "cannot be fetched" in text and f"git ls-remote file://{other}" in text


def test_code_of_another_repository_needs_a_clean_environment_and_a_full_hash(lab, tmp_path):
    other = make_lab(tmp_path / "other")
    assert "full hash" in refusal(lab, repo=f"file://{other}")
    write(lab, {"environments/small/python-version": "3.12\n"})
    text = refusal(lab, repo=f"file://{other}", commit=git(other, "rev-parse", "HEAD"))
    assert " M environments/small/python-version" in text


def _fetch(url, commit):
    return repository.cached_clone(url, commit)


def test_a_remote_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setitem(repository.UNATTENDED, "GIT_HTTP_LOW_SPEED_TIME", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ProvenanceError, match="cannot be fetched"):
        repository.cached_clone(f"http://127.0.0.1:{silent.getsockname()[1]}/lab.git", "0" * 40)


def test_a_clone_fetches_by_the_ssh_command_that_it_was_given(lab, tmp_path):
    program, log = tmp_path / "own", tmp_path / "log"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit 1\n')
    program.chmod(0o755)
    git(lab, "remote", "add", "origin", "git@lab.invalid:lab.git")
    git(lab, "config", "core.sshCommand", f"{program} -i deploy_key")
    with pytest.raises(Unreachable, match="origin cannot be fetched"):
        repository.obtain(lab, "0" * 40)
    assert "-i deploy_key" in log.read_text()


def test_two_processes_may_fetch_the_same_repository(lab):
    wanted = git(lab, "rev-parse", "HEAD")
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.starmap(_fetch, [(f"file://{lab}", wanted)] * 4)
    assert len(set(folders)) == 1
    assert objects.has_commit(folders[0], wanted)


def test_the_last_commit_of_a_stack_file(lab):
    first = git(lab, "rev-parse", "HEAD")
    write(lab, {"README.md": "More.\n"})
    commit(lab)
    assert provenance.stack_file_commit(work_tree(lab), lab / "stacks/Pulumi.fit.yaml") == first


def test_thousands_of_files_without_opening_one(lab):
    for number in range(5000):
        (lab / f"experiments/f{number}.py").write_text(f"{number}\n")
    commit(lab)
    began = time.monotonic()
    assert len(resolve(lab).files) == 5001
    assert time.monotonic() - began < 10


def test_thousands_of_links_are_read_by_one_process(lab):
    for number in range(3000):
        (lab / f"experiments/l{number}").symlink_to("fit.py")
    commit(lab)
    began = time.monotonic()
    assert len(resolve(lab).files) == 3001
    assert time.monotonic() - began < 5


def test_git_commands_leave_no_lock_and_no_change_behind(lab):
    before = (lab / ".git/index").read_bytes()
    os.utime(lab / "experiments/fit.py", (1, 1))
    resolve(lab)
    assert (lab / ".git/index").read_bytes() == before
    assert not Path(lab / ".git/index.lock").exists()


def test_a_path_with_the_name_of_a_variable_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    lab = make_lab(tmp_path / "$WHERE" / "~" / "lab")
    assert names(resolve(lab)) == names(resolve(make_lab(tmp_path / "plain")))
    write(lab, {"experiments/fit.py": "print(2)\n"})
    with pytest.raises(ProvenanceError, match=r"M experiments/fit\.py"):
        resolve(lab)


def test_without_git_the_message_says_so(tmp_path):
    lab = make_lab(tmp_path / "lab")
    program = (
        "import sys\nfrom pathlib import Path\nfrom ems.base.errors import ProvenanceError\n"
        "from ems.lab import repository\n"
        "try:\n    repository.opened(Path(sys.argv[1])).__enter__()\n"
        "except ProvenanceError as error: print(error)"
    )
    environ = {"PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program, lab], env=environ, capture_output=True, text=True, check=False
    )
    assert "git is not installed, or not on PATH" in done.stdout, done.stderr


def test_what_git_ignores_in_the_declared_paths_is_named(lab):
    write(
        lab,
        {"experiments/data/a.csv": "1", "experiments/__pycache__/a.pyc": "", "experiments/.cache/x": "", "data/b": ""},
    )
    write(lab, {".gitignore": "data/\n__pycache__/\n.cache/\n"})
    commit(lab)
    assert provenance.ignored(work_tree(lab), CodeSpec(paths=("experiments",))) == ["experiments/data/"]
    assert provenance.ignored(work_tree(lab), CodeSpec()) == []
