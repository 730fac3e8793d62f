"""What the tests of several modules need."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest

from ems import clusters, databases, lab
from ems.cli import scaffold
from ems.databases import Experiment, Experimenter, Funding, Outcome, Project, State
from ems.engine import preflight
from ems.lab import Lab
from ems.lab.stacks import StackFiles
from ems.spool.batch import Batch

pytest_plugins = [
    "tests.tally",
    "tests.engine.engines",
    "tests.databases.servers",
    "tests.databases.dynamodb_server",
    "tests.databases.bigquery_server",
    "tests.databases.secret_stores",
]

# Else the engine looks for the plugins of packages that are installed and not used, which takes seconds each time.
os.environ["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure of a test
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """What tests start meets signals at their defaults, also where the shell ignores some (`nohup`, a CI's runner).

    A handler does not pass to a new program, as ignoring does; and this process still survives such a signal.
    """
    starts_others = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    for number in () if starts_others else (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def pytest_xdist_auto_num_workers() -> int:
    """Half of the time a test waits for processes."""
    return max(3 * (os.cpu_count() or 1) // 2, 2)


@pytest.hookimpl(tryfirst=True)  # before marks are chosen by -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _is_drill(item):
            item.add_marker("drill")
    if "EMS_DRILL" in os.environ:
        return
    left_out = [item for item in items if item.get_closest_marker("drill")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if not item.get_closest_marker("drill")]


def _is_drill(item: pytest.Item) -> bool:
    """By its file, or as its class says of a contract's tests: those `drilled`, or all but those `telling`."""
    of, name = getattr(item, "cls", None), getattr(item, "originalname", "")
    return (
        item.path.name.startswith("drill_")
        or name in getattr(of, "drilled", ())
        or name not in getattr(of, "telling", {name})
    )


@pytest.fixture(scope="session")
def lab_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "lab"
    scaffold.init(root)
    return root


@pytest.fixture
def here(lab_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A fresh lab with the experiment `pi`, which the test works in."""
    shutil.copytree(lab_template, tmp_path / "lab", symlinks=True)
    monkeypatch.chdir(tmp_path / "lab")
    return lab.find()


def commit(root: Path) -> None:
    who = ["-c", "user.name=EMS", "-c", "user.email=ems@localhost"]
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    subprocess.run(["git", *who, "commit", "-qm", "A change"], cwd=root, check=True)


def registered(here: Lab, stack: str = "pi") -> Experiment:
    """The experiment that `ems up` would register, in the lab's database, without a run."""
    with closing(databases.connect(here.database_url, here.root)) as database:
        database.create()
        for record in (Experimenter("me", "Me"), Project("first", "First"), Funding("unfunded", "none")):
            database.upsert(record)
        resolved = preflight.require(StackFiles(here, clusters.settings()), stack)
        assert resolved
        return database.register(resolved.row)


def ran(here: Lab, *batches: Batch, state: State | None = State.SUCCEEDED, error: str = "") -> Experiment:
    """The experiment `pi` with a run that stored `batches` and ended; without a `state` it still runs."""
    experiment = registered(here)
    with closing(databases.connect(here.database_url, here.root)) as database:
        claim = database.claim(experiment.id, agent="agent", lease_s=3600)
        assert claim
        for batch in batches:
            database.store(claim, batch)
        if state:
            database.release(claim, Outcome(state, points_done=1, points_failed=0, error=error))
        found = database.experiment(experiment.id)
        assert found
        return found
