"""What others would lack of an experiment's code is refused, and what Pulumi writes is no change."""

import os
import subprocess

import pytest

from ems.base.errors import ProvenanceError
from ems.lab.repository import work_tree
from ems.provenance import code as provenance
from tests.provenance.labs import FILES, commit, git, names, refusal, resolve, write

pytestmark = pytest.mark.usefixtures("own_git_and_cache")


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"experiments/fit.py": "print(2)\n"}, " M experiments/fit.py"),
        ({"experiments/new.py": ""}, "?? experiments/new.py"),
        ({"environments/small/requirements.txt": "six==1.16.0\n"}, " M environments/small/requirements.txt"),
        ({"stacks/Pulumi.fit.yaml": "config:\n  ems:experiment:\n    title: Other\n"}, " M stacks/Pulumi.fit.yaml"),
    ],
)
def test_a_change_that_others_would_lack_is_refused(lab, change, shown, monkeypatch):
    monkeypatch.chdir(lab / "experiments")
    write(lab, change)
    text = refusal(lab, paths=["experiments"])
    assert shown in text
    assert f"git add {os.path.relpath(next(iter(change)), 'experiments')} && git commit" in text.splitlines()
    assert ("list in .gitignore" in text) == shown.startswith("??")


def test_the_offered_command_mends_it(lab, monkeypatch):
    monkeypatch.chdir(lab)
    write(lab, {"experiments/a b.py": "", "experiments/fit.py": "print(2)\n", "-f/data.csv": "1\n"})
    command = next(line for line in refusal(lab).splitlines() if line.startswith("git add"))
    subprocess.run(command + " -q -m Mended", shell=True, cwd=lab, check=True, env={**os.environ, "GIT_EDITOR": "true"})
    assert "experiments/a b.py" in names(resolve(lab))


@pytest.mark.parametrize(
    "change",
    [
        {"README.md": "More.\n"},
        {"notebooks/new.ipynb": "{}"},
        {"stacks/Pulumi.other.yaml": "config: {}"},
        {"data/big.csv": "1\n"},
        {"experiments/__pycache__/fit.cpython-311.pyc": "x"},
    ],
)
def test_a_change_elsewhere_is_nobodys_business(lab, change):
    before = resolve(lab)
    write(lab, change)
    assert resolve(lab) == before


def test_what_waits_to_be_committed_is_told_once(lab):
    write(lab, {"more/new.py": "", "experiment/fit.py": ""})
    git(lab, "add", "more")
    text = refusal(lab, paths=["experiments", "more", "experiment"])
    assert "A  more/new.py" in text and "?? experiment/fit.py" in text
    assert "code.paths" not in text and "Nearest" not in text
    commit(lab)
    git(lab, "rm", "-q", "-r", "--cached", "experiment")
    git(lab, "commit", "-q", "-m", "Without")
    write(lab, {".git/info/exclude": "experiment/\n"})
    assert "code.paths has 'experiment': not in commit" in refusal(lab, paths=["experiment"])


def test_a_new_stack_file_that_is_staged_is_told_as_that(lab):
    new = lab / "stacks/Pulumi.new.yaml"
    write(lab, {"stacks/Pulumi.new.yaml": "config: {}\n"})
    assert "?? stacks/Pulumi.new.yaml" in refusal(lab, stack_file=new)
    git(lab, "add", ".")
    assert "A  stacks/Pulumi.new.yaml" in refusal(lab, stack_file=new)


def test_staged_and_deleted_files_count_as_changes(lab):
    write(lab, {"experiments/fit.py": "print(3)\n"})
    git(lab, "add", ".")
    (lab / "experiments/fit.py").write_text(FILES["experiments/fit.py"])
    git(lab, "rm", "-q", "--cached", "environments/small/python-version")
    text = refusal(lab)
    assert "MM experiments/fit.py" in text
    assert "D  environments/small/python-version" in text


def test_ten_files_are_listed_and_the_rest_counted(lab):
    write(lab, {f"experiments/new{number:02}.py": "" for number in range(13)})
    text = refusal(lab)
    assert "new09.py" in text and "new10.py" not in text.split("git add")[0]
    assert "and 3 more" in text


def test_what_pulumi_writes_into_a_stack_file_is_no_change(lab):
    stack = lab / "stacks/Pulumi.fit.yaml"
    content = stack.read_text()
    stack.write_text("encryptionsalt: v1:abc\nsecretsprovider: gcpkms://key\nencryptedkey: abc\n" + content)
    assert resolve(lab).commit == git(lab, "rev-parse", "HEAD")
    git(lab, "add", ".")
    assert resolve(lab).commit == git(lab, "rev-parse", "HEAD")
    stack.write_text("environment: [shared]\n" + content)  # by a person: it may hold configuration
    assert "stacks/Pulumi.fit.yaml" in refusal(lab)


def test_a_staged_change_of_the_stack_file_is_refused_though_the_file_is_back(lab):
    stack = lab / "stacks/Pulumi.fit.yaml"
    before = stack.read_text()
    stack.write_text(before.replace("Fit", "Other"))
    git(lab, "add", ".")
    stack.write_text(before)
    assert "stacks/Pulumi.fit.yaml" in refusal(lab)


def test_a_stack_file_full_of_aliases_is_compared_in_no_time(lab):
    stack = lab / "stacks/Pulumi.fit.yaml"
    levels = "".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(30))
    stack.write_text("a0: &a0 x\n" + levels)
    commit(lab)
    assert resolve(lab).files
    stack.write_text("encryptionsalt: v1:abc\n" + stack.read_text())
    assert " M stacks/Pulumi.fit.yaml" in refusal(lab)


def test_a_stack_file_that_git_ignores_or_lacks_is_refused(lab):
    write(lab, {".gitignore": "data/\nstacks/Pulumi.mine.yaml\n", "stacks/Pulumi.mine.yaml": "config: {}\n"})
    commit(lab)
    mine = lab / "stacks/Pulumi.mine.yaml"
    assert "?? stacks/Pulumi.mine.yaml" in refusal(lab, stack_file=mine)
    with pytest.raises(ProvenanceError, match="not committed"):
        provenance.stack_file_commit(work_tree(lab), mine)


def test_all_problems_are_told_at_once(lab):
    write(lab, {"experiments/fit.py": "print(4)\n"})
    text = refusal(lab, paths=["experiments", "absent"], remote_needed=True)
    assert " M experiments/fit.py" in text
    assert "'absent'" in text
    assert "no remote" in text and "git remote add origin URL" in text


@pytest.mark.parametrize(
    "by_a_person, by_pulumi",
    [
        ("  ems:experiment: {a: 1e-3, b: 1e5, c: 0o17, d: ~}", "{a: 0.001, b: 100000, c: 15, d: null}"),
        ("  ems:experiment: {a: 2.0, b: TRUE, c: 017, d: .5}", "{a: 2, b: true, c: 15, d: 0.5}"),
        ("  ems:experiment: {a: 1_000, b: 9223372036854775807}", "{a: 1000, b: 9223372036854775807}"),
        ("  aws:retries: 1e-3", '"0.001"'),
        ("  aws:flag: true", '"true"'),
        ("  aws:none:", '""'),
        ("  aws:day: 2020-1-2", "2020-01-02 00:00:00 +0000 UTC"),
    ],
)
def test_a_stack_file_that_pulumi_rewrote_says_the_same(lab, by_a_person, by_pulumi):
    stack = lab / "stacks/Pulumi.fit.yaml"
    stack.write_text(f"config:\n{by_a_person}\n")
    commit(lab)
    key = by_a_person.partition(": " if ": " in by_a_person else ":\n")[0].rstrip(":")
    stack.write_text(f"config:\n{key}: {by_pulumi}\nencryptionsalt: v1:abc\n")
    assert resolve(lab).files
    for old, new in [("true", "1"), ("null", '""'), ("0.001", "0.0011"), ("5807", "5806"), ("00 +", "01 +")]:
        stack.write_text(f"config:\n{key}: {by_pulumi.replace(old, new)}\n")
        if old in by_pulumi:
            assert " M stacks/Pulumi.fit.yaml" in refusal(lab)


def test_a_stack_file_may_be_a_link_to_one_of_the_repository(lab, tmp_path):
    stack, shared = lab / "stacks/Pulumi.fit.yaml", lab / "shared/fit.yaml"
    shared.parent.mkdir()
    stack.rename(shared)
    stack.symlink_to("../shared/fit.yaml")
    assert "stacks/Pulumi.fit.yaml" in refusal(lab) and "shared/fit.yaml" in refusal(lab)
    commit(lab)
    written = commit(lab)
    assert resolve(lab, paths=("experiments",)).commit == written
    shared.write_text("encryptionsalt: v1:abc\n" + shared.read_text())
    assert resolve(lab, paths=("experiments",)).files
    shared.write_text(shared.read_text().replace("Fit", "Other"))
    assert " M shared/fit.yaml" in refusal(lab, paths=("experiments",))
    changed = commit(lab)
    assert provenance.stack_file_commit(work_tree(lab), stack) == changed
    (tmp_path / "outside.yaml").write_text(shared.read_text())
    stack.unlink()
    stack.symlink_to(tmp_path / "outside.yaml")
    commit(lab)
    assert "outside this repository" in refusal(lab)


def test_in_a_merge_nothing_is_offered_that_commits_its_conflicts(lab):
    git(lab, "checkout", "--quiet", "-b", "other")
    write(lab, {"experiments/fit.py": "print(2)\n"})
    commit(lab)
    git(lab, "checkout", "--quiet", "-")
    write(lab, {"experiments/fit.py": "print(3)\n"})
    commit(lab)
    with pytest.raises(subprocess.CalledProcessError):
        git(lab, "merge", "other")
    text = refusal(lab)
    assert "UU experiments/fit.py" in text and "git add" not in text and "git merge --abort" in text
