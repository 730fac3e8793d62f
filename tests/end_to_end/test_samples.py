"""The sample experiments of this repository, run in a fresh clone of it."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ems.base.process import run
from ems.engine import install as engine
from tests.end_to_end.conftest import User

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """The files of this repository, as they are in the working tree, in one of their own; both samples have run."""
    engine.ensure()
    root = tmp_path_factory.mktemp("samples") / "clone"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    subprocess.run(["git", "init", "-q", root], check=True)
    somebody = User(root)
    somebody.commit("The samples")
    somebody.ems("up", "lab", "digits", "rnorm")
    yield somebody
    somebody.end()


def frame(clone: User, stack: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(clone.ems("results", stack, "--format", "csv").stdout))


def test_the_learning_curve_of_digits_rises(clone: User) -> None:
    rows = frame(clone, "digits")
    assert len(rows) == 2 * 7 * 12 and not rows.isna().any().any()
    assert (rows.train_size + rows.test_size).eq(1797).all() and rows.accuracy.between(0, 1).all()
    curves = rows.pivot_table(index="train_size", columns="classifier", values="accuracy")
    assert list(curves.index) == [20, 40, 80, 160, 320, 640, 1280]
    assert curves["svm"].is_monotonic_increasing and curves["logistic"].is_monotonic_increasing
    assert curves["svm"].iloc[-1] > 0.9 > curves["svm"].iloc[0]


def test_the_spread_of_normal_samples_in_r_falls(clone: User) -> None:
    rows = frame(clone, "rnorm")
    assert rows.groupby("size")["replicate"].apply(list).to_dict() == {
        size: list(range(1, 51)) for size in (10, 100, 1000, 10000)
    }
    for size, part in rows.groupby("size"):
        assert abs(part["mean"].mean()) < 5 / (50 * size) ** 0.5
    spread = rows.groupby("size")["sd"].std()
    assert (spread.diff().dropna() < 0).all() and spread.iloc[-1] < 0.02
    assert abs(rows[rows["size"] == 10000]["sd"].mean() - 1) < 0.01


def test_the_notebook_draws_what_is_stored(clone: User) -> None:
    done = subprocess.run(
        [sys.executable, "notebooks/digits.py"], cwd=clone.root, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0 and "168 rows" in done.stdout, done.stderr
    assert (clone.root / "digits.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_running_the_samples_leaves_a_clone_as_it_was_that_runs_nothing_again(clone: User) -> None:
    clone.ems("up", "lab", "digits", "rnorm")
    assert clone.query("SELECT count(*), max(attempt) FROM run") == [(2, 1)]
    assert run(["git", "status", "--porcelain"], cwd=clone.root) == ""
