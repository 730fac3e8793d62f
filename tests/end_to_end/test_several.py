"""`ems up` of several stacks, and of what is done already: which updates are made, and how each stack ends."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from ems.engine import manners
from tests.end_to_end.conftest import User, expected
from tests.engine.test_growth import asked
from tests.processes import PATIENCE_S


def updates_made(user: User) -> int:
    """Pulumi keeps a file of each."""
    return len(list((user.root / ".ems/state/.pulumi/history/lab").rglob("*.history.json")))


def also(user: User, stack: str, **parameters: object) -> None:
    """Another experiment like `e`, committed."""
    described = json.loads((user.root / "stacks/Pulumi.e.yaml").read_text())
    experiment = described["config"]["ems:experiment"]
    experiment["results"] = {"table": stack}
    experiment["job"]["parameters"] |= {"stack": stack, **parameters}
    user.write(f"stacks/Pulumi.{stack}.yaml", json.dumps(described))
    user.commit(f"Another one, {stack}")


def values(user: User, table: str) -> list[tuple[object, ...]]:
    return user.query(f"SELECT i, value FROM {table} ORDER BY i")


def test_where_nothing_has_to_be_done_no_update_is_made_unless_it_is_asked_for(user: User) -> None:
    user.experiment()
    user.ems("up", "lab", "e")
    before = updates_made(user)
    assert user.ems("up", "lab", "e").stdout == "[1/2] ✓ lab\n[2/2] ✓ e already computed (6 rows)\n"
    assert updates_made(user) == before
    user.ems("up", "lab", "e", "--refresh")
    assert updates_made(user) > before and user.query("SELECT count(*) FROM run") == [(1,)]


def test_what_is_done_already_is_found_out_without_the_engine_and_of_git_once_for_all(
    user: User, tmp_path: Path
) -> None:
    user.experiment()
    others = ["f", "g", "h", "i"]
    for stack in others:
        also(user, stack)
    user.ems("up", "e", *others)
    few, opened, _, _ = asked(user.root, tmp_path / "few", "up", "e")
    many, opened_more, _, started = asked(user.root, tmp_path / "many", "up", "e", *others)
    assert few == many and set(started) == {"git"}
    ours = {name: number for name, number in opened_more.items() if name in opened}
    assert max(ours.values()) <= max(opened.values()) + len(others)  # the database, once for each


def test_whoever_waited_makes_no_update_of_its_own(user: User) -> None:
    user.experiment(rows=20, pause_s=0.2)
    user.ems("up", "lab")
    before = updates_made(user)
    commands = [user.start("up", "e") for _ in range(4)]
    assert [command.wait(PATIENCE_S) for command in commands] == [0] * 4
    assert updates_made(user) == before + 2  # the run, and the release
    assert user.rows() == expected(20)


def test_a_damaged_state_of_what_is_done_is_told_and_repaired(user: User) -> None:
    user.experiment()
    user.ems("up", "e")
    state = manners.state(user.root / ".ems/state/.pulumi", "lab", "e")
    state.write_bytes(state.read_bytes()[:100])
    assert "was damaged" in user.ems("up", "e", expect=5).stderr
    user.ems("up", "e")
    assert user.query("SELECT count(*) FROM run") == [(1,)]


def test_experiments_go_on_side_by_side_and_one_that_fails_leaves_the_others_alone(user: User) -> None:
    user.experiment(rows=20, pause_s=0.2)
    also(user, "f")
    also(user, "g", trouble="/")
    done = user.ems("up", "e", "f", "g", expect=6)
    assert values(user, "e") == values(user, "f") == expected(20)
    assert sorted(line[:5] for line in done.stdout.splitlines() if line.startswith("[")) == ["[1/3]", "[2/3]", "[3/3]"]
    assert "✓ e succeeded" in done.stdout and "✓ f succeeded" in done.stdout and "✗ g failed" in done.stdout
    assert done.stderr.startswith("error: g failed: ") and "ems up g --retry" in done.stderr
    runs = "FROM run JOIN experiment ON id = experiment_id WHERE stack IN ('e', 'f')"
    assert user.query(f"SELECT max(run.claimed_at) < min(run.finished_at) {runs}") == [(1,)]
    assert user.query("SELECT sum(machines) FROM experiment") == [(0,)]


def test_what_cannot_be_brought_up_leaves_the_others_alone(user: User) -> None:
    user.experiment()
    also(user, "f", seed=1)
    user.write("stacks/Pulumi.f.yaml", (user.root / "stacks/Pulumi.f.yaml").read_text().replace("job.py", "gone.py"))
    user.commit("A program that is not there")
    done = user.ems("up", "e", "f", expect=2)
    assert user.rows() == expected(6)
    assert "✗ f " in done.stdout and "gone.py" in done.stdout and "1 of 2 stacks could not be brought up" in done.stderr


def test_ctrl_c_ends_all_of_them_in_order(user: User) -> None:
    user.experiment(rows=200, pause_s=0.2)
    also(user, "f")
    command = user.start("up", "e", "f")
    user.wait(lambda: user.query("SELECT count(*) FROM experiment WHERE rows_stored > 1") == [(2,)])
    watching = user.start("up", "e", "f")
    user.wait(lambda: user.said(watching).count("watching its run") == 2)
    os.killpg(watching.pid, signal.SIGINT)
    assert watching.wait(PATIENCE_S) == 130 and user.said(watching).count("interrupted: running") == 2
    os.killpg(command.pid, signal.SIGINT)
    assert command.wait(PATIENCE_S) == 130, user.said(command)
    assert user.query("SELECT state, machines FROM experiment") == [("cancelled", 0)] * 2
    assert "Go on with: ems up e --retry" in user.said(command) and "ems up f --retry" in user.said(command)
    assert user.locks() == [] and not user.agents()


def test_all_that_pulumi_shows_is_shown_where_it_is_asked_for(user: User) -> None:
    user.experiment()
    shown = user.ems("up", "e", "--verbose").stdout
    assert "ems:index:Run" in shown and "created" in shown
    assert "ems:index" not in user.ems("up", "e", "--refresh").stdout
