"""From a stack file to a row, in a real repository."""

from __future__ import annotations

import subprocess

import pytest

from ems.lab import find
from ems.provenance.registration import registration
from ems.stack import spec, stackfile

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


def git(folder, *words):
    person = ["-c", "user.name=researcher", "-c", "user.email=researcher@example.org"]
    subprocess.run(["git", *person, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def row(tmp_path, monkeypatch):
    """The row of a stack file with this job."""
    files = {
        "Pulumi.yaml": "name: lab\nruntime: python\nconfig:\n  ems:lab_id: 6f9619ff-8b86-d011-b42d-00c04fc964ff\n",
        "svd.py": "def run(n, seed): return {'x': n}\n",
        "environments/small/requirements.txt": "",
        "environments/small/python-version": "3.11\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")

    def made(job):
        file = tmp_path / "stacks" / "Pulumi.svd.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{STACK}      {job}\n")
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Change")
        described = stackfile.load(file)
        assert isinstance(described, spec.ExperimentSpec)
        return registration(find(), "svd", described, "laptop", remote_needed=False)

    return made


def test_a_sweep_has_as_many_points_as_its_grids(row):
    assert row(SWEEP).points_total == 12
    assert row("{function: 'svd:run', sweep: [{n: [1, 2]}, {n: {range: [0.5, 3, 0.5]}}]}").points_total == 8
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
    ],
)
def test_another_grid_is_another_experiment_whose_points_are_the_same(row, job, same_points):
    first, second = row(SWEEP), row(job)
    assert first.id != second.id
    assert (first.job_digest == second.job_digest) == same_points
