"""From a stack file to a row, in a real repository."""

from __future__ import annotations

import json
import re

import pytest

from ems.base.errors import ProvenanceError, StackFileError
from ems.lab import find
from ems.lab.repository import work_tree
from ems.provenance import code as provenance
from ems.provenance import identity
from ems.provenance.registration import resolve
from ems.stack import spec, stackfile
from tests.provenance.labs import commit, git, write

STACK = """config:
  ems:experiment:
    project: p
    experimenter: r
    funding: f
    environment: small
    results: {table: t}
    job:
"""
SWEEP = "{function: 'svd:run', sweep: {n: [1, 2, 3], seed: {count: 4}}}"


@pytest.fixture
def row(tmp_path, monkeypatch):
    """The row of a stack file with this job."""
    files = {
        "Pulumi.yaml": "name: lab\nruntime: python\nconfig:\n  ems:lab_id: 6f9619ff-8b86-d011-b42d-00c04fc964ff\n",
        "svd.py": "def run(n, seed): return {'x': n}\n",
        "environments/small/requirements.txt": "",
        "environments/small/python-version": "3.11\n",
    }
    write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")

    def made(job):
        file = tmp_path / "stacks" / "Pulumi.svd.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{STACK}      {job}\n")
        commit(tmp_path)
        described = stackfile.load(file)
        assert isinstance(described, spec.ExperimentSpec)
        return resolve(find(), work_tree(tmp_path), "svd", described, "laptop", remote_needed=False).row

    return made


def test_a_sweep_has_as_many_points_as_its_grids(row):
    assert row(SWEEP).points_total == 12
    assert row("{function: 'svd:run', sweep: [{n: [1, 2]}, {n: {range: [0.5, 3, 0.5]}}]}").points_total == 6
    command = row("{command: python svd.py}")
    assert (command.points_total, command.job_digest) == (1, "")


@pytest.mark.parametrize(
    "job",
    [
        SWEEP.replace("[1, 2, 3]", "{range: [1, 3, 1]}"),
        SWEEP.replace("n: [1, 2, 3], seed: {count: 4}", "seed: {root: 0, count: 4}, n: [1, 2, 3]"),
        SWEEP[:-1] + ", retries: 3, max_failures: 5, point_timeout_s: 9, memory_mb: 500}",
    ],
)
def test_how_it_is_written_and_its_limits_make_no_other_experiment(row, job):
    first, second = row(SWEEP), row(job)
    assert (first.id, first.job_digest) == (second.id, second.job_digest)
    assert first.spec != second.spec


@pytest.mark.parametrize(
    "job, same_points",
    [
        (SWEEP.replace("[1, 2, 3]", "[1, 2, 3, 4]"), True),
        (SWEEP.replace("[1, 2, 3]", "[3, 2, 1]"), True),
        (SWEEP.replace("svd:run", "svd:other"), False),
        (SWEEP[:-1] + ", threads: 2}", False),
        (SWEEP[:-1] + ", setup: 'svd:load'}", False),
    ],
)
def test_another_grid_is_another_experiment_whose_points_are_the_same(row, job, same_points):
    first, second = row(SWEEP), row(job)
    assert first.id != second.id
    assert (first.job_digest == second.job_digest) == same_points


@pytest.mark.parametrize("order", ["grid", "random"])
def test_the_order_of_points_makes_no_other_experiment(row, order):
    first, second = row(SWEEP), row(f"{SWEEP[:-1]}, order: {order}}}")
    assert (first.id, first.points_total, first.job_digest) == (second.id, second.points_total, second.job_digest)
    assert (first.spec == second.spec) == (order == "grid")


def test_points_left_out_make_another_experiment_whose_points_are_the_same(row):
    first, second = row(SWEEP), row(SWEEP[:-1] + ", exclude: [n > 2, {n: 1}]}")
    assert (first.points_total, second.points_total) == (12, 4)
    assert first.id != second.id and first.job_digest == second.job_digest
    assert second.id == row(SWEEP[:-1] + ", exclude: [{n: 1.0}, (n>2)]}").id
    with pytest.raises(StackFileError, match=r"exclude.*leaves out all 12 points"):
        row(SWEEP[:-1] + ", exclude: n > 0}")


def test_grids_that_share_points_are_recorded_with_each_once(row):
    sweep = "[{theta: {linspace: [0, 1, 6]}}, {theta: {linspace: [0, 1, 11]}}]"
    made = row(f"{{function: 'svd:run', sweep: {sweep}}}")
    assert made.points_total == 11
    grids = json.loads(made.spec)["job"]["sweep"]
    assert grids == [{"theta": [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]}, {"theta": [0.1, 0.3, 0.5, 0.7, 0.9]}]


def test_what_is_recorded_has_seeds_of_31_bits_under_the_id_that_it_had_before(row):
    made = row(SWEEP)
    assert json.loads(made.spec)["job"]["sweep"] == [{"n": [1, 2, 3], "seed": {"count": 4, "bits": 31}}]
    grids = [{"n": [4, [1, 2, 3]], "seed": [1, {"count": 4, "root": 0}]}]
    job = {"function": "svd:run", "threads": 1, "grids": grids}
    parts = {"tree": made.tree, "environment": made.environment_digest, "python": made.python}
    assert made.digest == identity.digest(**parts, job=job, inputs={}, env={})


def test_how_long_a_set_up_may_take_makes_no_other_experiment(row):
    with_setup = SWEEP[:-1] + ", setup: 'svd:load'}"
    assert row(with_setup).id == row(with_setup[:-1] + ", setup_timeout_s: 60}").id


GIANTS = "[9223372036854775808,36893488147419103232]"
WRITTEN = {
    "sweep": ("{function: 'svd:run', sweep: {n: [100.0, 1e3], m: {range: [0.0, 2.0, 1.0]}}}", "100.0,1000.0"),
    "command": ("{command: python svd.py, parameters: {x: 2.0, y: [1e3, 3], n: 7}}", '"n":7,"x":2.0,"y":[1000.0,3]'),
    "digits": ("{command: python svd.py, parameters: {n: [9223372036854775808, 36893488147419103232]}}", GIANTS),
    "axis": ("{function: 'svd:run', sweep: {n: [9223372036854775808, 36893488147419103232]}}", GIANTS),
}


def rewritten(text: str) -> str:
    """As Pulumi writes a file anew."""
    shorter = text.replace("1e3", "1000").replace("775808", "776000").replace("103232", "103000")
    plain = re.sub(r"(\d)\.0\b", r"\1", shorter)
    return f"{plain}encryptionsalt: v1:abc:def\n"


@pytest.mark.parametrize("job, recorded", WRITTEN.values(), ids=WRITTEN)
def test_numbers_keep_the_type_in_which_people_wrote_them_through_all_that_pulumi_does(row, tmp_path, job, recorded):
    """The kind: what Pulumi does not tell apart, and a program does, is read where people wrote it."""
    first = row(job)
    assert recorded in first.spec
    file = tmp_path / "stacks" / "Pulumi.svd.yaml"
    file.write_text(rewritten(file.read_text()))
    for committed in (False, True):
        if committed:
            git(tmp_path, "commit", "--quiet", "--all", "--message", "As Pulumi wrote it")
        described = stackfile.load(file)
        assert recorded not in spec.to_json(described)
        again = resolve(find(), work_tree(tmp_path), "svd", described, "laptop", remote_needed=False).row
        assert (again.id, again.spec, again.points_total) == (first.id, first.spec, first.points_total)


@pytest.mark.parametrize("job", [job for job, _ in WRITTEN.values() if ".0" in job])
def test_a_change_of_types_that_people_commit_counts_and_one_that_they_do_not_is_refused(row, tmp_path, job):
    whole = rewritten(job).partition("encryptionsalt")[0]
    first, second = row(job), row(whole)
    assert first.id == second.id
    assert "." not in json.dumps(json.loads(second.spec)["job"]["sweep" if "sweep" in job else "parameters"])
    file = tmp_path / "stacks" / "Pulumi.svd.yaml"
    file.write_text(f"{STACK}      {job}\n")
    with pytest.raises(ProvenanceError, match="numbers with a point that the last commit has without"):
        resolve(find(), work_tree(tmp_path), "svd", stackfile.load(file), "laptop", remote_needed=False)


def test_an_experiment_of_the_earlier_default_paths_stays_the_same_until_its_code_changes(row, tmp_path):
    now = row(SWEEP)
    described = stackfile.load(tmp_path / "stacks/Pulumi.svd.yaml")
    tree = work_tree(tmp_path)
    before = provenance.as_before(tree, described.code, provenance.at_commit(tree, described.code))
    assert "Pulumi.yaml" in [file.path for file in before.files] and before.tree != now.tree
    asked = []

    def again(known):
        def is_known(id):
            asked.append(id)
            return id in known

        return resolve(
            find(), work_tree(tmp_path), "svd", described, "laptop", remote_needed=False, is_known=is_known
        ).row

    assert again(set()) == again({now.id}) == now
    earlier = again({asked[1]})
    assert earlier.tree == before.tree and earlier.id == asked[1] != now.id
    assert provenance.at_commit(work_tree(tmp_path), described.code, earlier.tree) == before
    assert provenance.at_commit(work_tree(tmp_path), described.code, now.tree).tree == now.tree
    (tmp_path / "svd.py").write_text("def run(n, seed): return {'y': n}\n")
    changed = row(SWEEP)
    assert again({earlier.id, now.id}) == changed != now


def test_what_is_not_of_the_experiment_does_not_change_it(row, tmp_path):
    now = row(SWEEP)
    for name in ("Pulumi.yaml", ".gitignore", "LICENSE", "environments/other/python-version", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with (tmp_path / name).open("a") as file:
            file.write("# changed\n")
        assert row(SWEEP).id == now.id
