"""What must and what must not make another experiment."""

import json
import shutil
import subprocess
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.lab.repository import work_tree
from ems.provenance import code as provenance
from ems.provenance import environment, identity
from ems.stack.models import CodeSpec

LAB = uuid.UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
JOB = {"command": ["python", "fit.py"], "parameters": {"seed": 1, "scale": 0.1}, "threads": 1}
PARTS = {"tree": "t", "job": JOB, "environment": "e", "python": "3.11", "inputs": {"data": "d"}, "env": {"A": "1"}}


def test_the_id_of_an_experiment_is_a_promise_to_the_rows_that_exist():
    """Were one of these to change, every lab would run all its experiments again."""
    digest = identity.digest(**PARTS)
    assert digest == "b638a867fa78a473060e366769d5c95ad1182bfb5836166653ff6af5424250a9"
    assert identity.experiment_id(LAB, "fit", digest) == "be99686c-92c0-590e-8bd6-1444f441e04e"
    accented = identity.digest(**(PARTS | {"env": {"A": "é"}}))
    assert accented == "bda465574c45c380881cf6dd0b53d0d77bda83d6c5c55baa8bba851b9b080de3"


def test_declared_columns_count_where_there_are_any():
    assert identity.digest(**PARTS, columns={}) == identity.digest(**PARTS)
    digests = {identity.digest(**PARTS, columns=columns) for columns in ({}, {"zip": "text"}, {"zip": "float"})}
    assert len(digests) == 3


def test_the_id_depends_on_lab_stack_and_digest():
    other_lab = uuid.uuid5(LAB, "other")
    ids = {
        identity.experiment_id(*of) for of in [(LAB, "a", "d" * 64), (other_lab, "a", "d" * 64), (LAB, "b", "d" * 64)]
    }
    ids.add(identity.experiment_id(LAB, "a", "e" * 64))
    assert len(ids) == 4
    assert {uuid.UUID(id).version for id in ids} == {5}


@pytest.mark.parametrize(
    "change",
    [
        {"tree": "u"},
        {"environment": "f"},
        {"python": "3.12"},
        {"inputs": {"data": "x"}},
        {"inputs": {}},
        {"env": {"A": "2"}},
        {"env": {"A": "1", "B": ""}},
        {"job": JOB | {"threads": 2}},
        {"job": JOB | {"command": ["fit.py", "python"]}},
        {"job": JOB | {"parameters": {"seed": 1, "scale": 0.1 + 2**-56}}},
        {"job": JOB | {"parameters": {"seed": 1, "scale": "0.1"}}},
        {"job": JOB | {"parameters": {"seed": True, "scale": 0.1}}},
    ],
)
def test_each_part_counts(change):
    assert identity.digest(**(PARTS | change)) != identity.digest(**PARTS)


def test_the_order_of_keys_does_not_count_and_that_of_lists_does():
    turned = {key: JOB[key] for key in reversed(JOB)} | {"parameters": {"scale": 0.1, "seed": 1}}
    assert identity.digest(**(PARTS | {"job": turned})) == identity.digest(**PARTS)
    lists = [JOB | {"parameters": {"seeds": seeds}} for seeds in ([1, 2], [2, 1])]
    assert len({identity.digest(**(PARTS | {"job": job})) for job in lists}) == 2


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.dictionaries(st.text(), SCALARS | st.lists(SCALARS), max_size=5))
def test_parameters_that_crossed_json_are_the_same(parameters):
    crossed = json.loads(json.dumps(parameters))
    assert identity.digest(**(PARTS | {"job": {"parameters": crossed}})) == identity.digest(
        **(PARTS | {"job": {"parameters": parameters}})
    )


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_floats_are_exact(one, other):
    digests = [identity.digest(**(PARTS | {"job": {"parameters": {"x": x}}})) for x in (one, other)]
    assert (digests[0] == digests[1]) == (one.hex() == other.hex())


def git(folder, *words):
    done = subprocess.run(["git", *map(str, words)], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write(folder, name, content):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "-c", "user.name=researcher", "-c", "user.email=researcher@example.org", "commit", "-q", "-m", "Change")


@pytest.fixture
def lab(tmp_path):
    folder = tmp_path / "lab"
    folder.mkdir()
    git(folder, "init", "--quiet")
    write(folder, "README.md", "A lab.\n")
    write(folder, "experiments/fit.py", "print(1)\n")
    write(folder, "stacks/Pulumi.fit.yaml", "config: {}\n")
    write(folder, "environments/small/requirements.txt", "# written by uv\nsix==1.16.0 --hash=sha256:00\n")
    write(folder, "environments/small/python-version", "3.11\n")
    commit(folder)
    return folder


def of(lab, paths=("experiments",)):
    """The digest of the committed lab, as a stack file that declares `paths` gives it."""
    stack_file = lab / "stacks/Pulumi.fit.yaml"
    spec = CodeSpec(paths=list(paths))
    code = provenance.resolve(
        work_tree(lab), spec, environment=["environments/small"], stack_file=stack_file, remote_needed=False
    )
    built = environment.of(work_tree(lab), code, "small")
    return identity.digest(**(PARTS | {"tree": code.tree, "environment": built.digest, "python": built.python}))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("README.md", "Better words.\n"),
        ("notebooks/look.ipynb", "{}"),
        ("docs/plan.txt", "Plan.\n"),
        ("stacks/Pulumi.fit.yaml", "config: {limits: raised}\n"),
    ],
)
@pytest.mark.parametrize("paths", [("experiments",), ()])
def test_a_commit_that_leaves_the_code_alone_is_the_same_experiment(lab, file, content, paths):
    before = of(lab, paths)
    write(lab, file, content)
    commit(lab)
    assert of(lab, paths) == before


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("experiments/fit.py", "print(2)\n"),
        ("experiments/more.py", ""),
        ("environments/small/requirements.txt", "six==1.17.0 --hash=sha256:00\n"),
        ("environments/small/requirements.txt", "six==1.16.0 --hash=sha256:01\n"),
        ("environments/small/python-version", "3.12\n"),
    ],
)
def test_changed_code_lock_or_python_is_another_experiment(lab, file, content):
    before = of(lab)
    write(lab, file, content)
    commit(lab)
    assert of(lab) != before


def test_a_file_made_executable_or_renamed_is_another_experiment(lab):
    seen = {of(lab)}
    git(lab, "update-index", "--chmod=+x", "experiments/fit.py")
    (lab / "experiments/fit.py").chmod(0o755)
    commit(lab)
    seen.add(of(lab))
    git(lab, "mv", "experiments/fit.py", "experiments/other.py")
    commit(lab)
    seen.add(of(lab))
    assert len(seen) == 3


def test_another_checkout_and_another_comment_in_the_lock_are_the_same_experiment(lab, tmp_path):
    before = of(lab)
    git(tmp_path, "clone", "--quiet", lab, tmp_path / "other place")
    shutil.rmtree(lab)
    other = tmp_path / "other place"
    assert of(other) == before
    write(
        other, "environments/small/requirements.txt", "--index-url x\n\nsix==1.16.0 \\\n  --hash=sha256:00  # via a\n"
    )
    commit(other)
    assert of(other) == before
