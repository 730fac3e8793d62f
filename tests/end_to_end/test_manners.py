"""The engine is asked whether it behaves as `ems.engine.manners` says: the newest and the oldest one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from ems import lab
from ems.base.process import CommandFailed
from ems.engine import install, manners
from ems.engine.repair import repair
from ems.engine.runner import Pulumi
from tests.end_to_end.conftest import User
from tests.end_to_end.test_interruptions import ROWS, begin, in_mid_run
from tests.processes import PATIENCE_S

pytestmark = pytest.mark.usefixtures("either_engine")
UP = ("up", "--yes", "--skip-preview", "--stack", "e")


def under_way(user: User) -> psutil.Process:
    """Plain `pulumi up` in mid-run."""
    begin(user)
    user.pulumi("stack", "init", "e")
    user.start("pulumi", *UP)
    user.wait(lambda: in_mid_run(user))
    (engine,) = user.updates()
    return engine


def backend(user: User) -> Path:
    return user.root / ".ems/state/.pulumi"


def hosts(user: User) -> list[psutil.Process]:
    return user.processes(name="pulumi-language-python")


def test_the_version_is_the_one_that_was_built(either_engine: str) -> None:
    assert either_engine in {install.OLDEST, install.VERSION}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_an_update_end_in_order(user: User, number: signal.Signals) -> None:
    engine = under_way(user)
    engine.send_signal(number)
    assert user.started[-1].wait(PATIENCE_S) not in {0, -number}
    assert user.state() == "cancelled" and user.locks() == [] and not user.deployment().get("pending_operations")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_closed_terminal_ends_it_at_once_and_its_language_host_is_found_by_any_path(
    user: User, number: signal.Signals, tmp_path: Path
) -> None:
    engine = under_way(user)
    (tmp_path / "link").symlink_to(user.root)
    assert manners.engines(tmp_path / "link") == [engine.pid] and manners.is_engine(engine.pid)
    manners.end_orphans(user.root)  # none is one yet
    assert hosts(user)
    engine.send_signal(number)
    user.wait(lambda: not manners.is_engine(engine.pid))  # its command line goes before it is gone
    assert hosts(user)
    (lock,) = manners.locks(backend(user), "lab", "e")
    holder = manners.holder(lock)
    assert holder and (holder.pid, holder.hostname) == (engine.pid, os.uname().nodename)
    manners.end_orphans(tmp_path / "elsewhere")
    assert hosts(user)
    manners.end_orphans(tmp_path / "link")
    user.wait(lambda: not hosts(user))


def test_a_lab_reached_through_a_symlink_is_cleaned_up_after_a_kill(user: User, tmp_path: Path) -> None:
    begin(user)
    user.start("up", "e")
    user.wait(lambda: in_mid_run(user))
    for process in (user.started[-1], *user.updates()):
        process.send_signal(signal.SIGKILL)
    user.go_on()
    (tmp_path / "link").symlink_to(user.root)
    User(tmp_path / "link").ems("up", "e")
    user.assert_undisturbed(ROWS)


def test_files_are_where_they_are_looked_for(user: User) -> None:
    user.experiment()
    user.pulumi("stack", "init", "e")
    user.pulumi(*UP)
    state = manners.state(backend(user), "lab", "e")
    assert state in manners.states(backend(user), "lab") and manners.attributes(state).is_file()
    before = [file.read_bytes() for file in manners.copies(state)]
    assert len(before) >= 2 and all("checkpoint" in json.loads(content) for content in before)
    file, content = manners.format_file(backend(user))
    assert file.read_text() == content and manners.attributes(file).is_file()
    repair(backend(user), manners.states(backend(user), "lab"))
    assert [copy.read_bytes() for copy in manners.copies(state)] == before


def test_it_says_whether_a_stack_is_there(user: User) -> None:
    pulumi = Pulumi.of(lab.read(user.root))
    with pytest.raises(CommandFailed) as absent:
        pulumi.quietly("stack", "export", "--stack", "nobody")
    with pytest.raises(CommandFailed) as present:
        pulumi.quietly("stack", "init", "--no-select", "--stack", "lab")
    assert manners.says_no_such_stack(absent.value) and not manners.says_no_such_stack(present.value)
    assert manners.says_stack_exists(present.value) and not manners.says_stack_exists(absent.value)


@pytest.mark.parametrize("name", ["a b", "a%20b", "a%b", "a#b", "a?b", "a\nb", "a\\b", "研究", "a\"'b"])
def test_a_labs_folder_may_have_any_name(user: User, name: str) -> None:
    folder = user.root.with_name(name)
    subprocess.run(["git", "clone", "-q", user.root, folder], check=True)
    other = User(folder)
    other.pulumi("stack", "init", "e")
    assert (folder / ".ems/state/.pulumi/stacks/lab/e.json").is_file()
    assert manners.states(backend(other), "lab")
