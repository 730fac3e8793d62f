"""How stacks are released, and how a run is stopped and followed from another process."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.end_to_end.conftest import EMS, User, expected
from tests.processes import PATIENCE_S

CLUSTER = "ems:index:Laptop"


def hold_clusters(user: User, *stacks: str) -> None:
    """Finished stacks that still declare their clusters, as one plain `pulumi up` leaves them."""
    user.experiment()
    described = (user.root / "stacks/Pulumi.e.yaml").read_text()
    (user.root / "stacks/Pulumi.e.yaml").unlink()
    for stack in stacks:
        user.write(f"stacks/Pulumi.{stack}.yaml", described.replace('"table": "e"', f'"table": "{stack}"'))
    user.commit("Several stacks")
    for stack in stacks:
        user.pulumi("stack", "init", stack)
        user.pulumi("up", "--yes", "--skip-preview", "--stack", stack)


def teardown(user: User, *words: str) -> dict[str, Any]:
    done: dict[str, Any] = json.loads(user.ems("teardown", *words, "--json").stdout)
    return done


def results(certificate: dict[str, Any]) -> dict[str, str]:
    return {stack["stack"]: stack["result"] for stack in certificate["stacks"]}


def test_finished_stacks_are_released_at_once_and_nothing_starts(user: User) -> None:
    hold_clusters(user, "a", "b", "c")
    foreseen = teardown(user, "--all", "--dry-run")
    assert foreseen["clusters_left"] == 3 and foreseen["machines_left"] == 0
    assert results(foreseen) == dict.fromkeys("abc", "to be released")
    user.ems("teardown", "--all", expect=2)  # nobody says yes
    with ThreadPoolExecutor(3) as pool:
        assert all(CLUSTER in types for types in pool.map(user.resources, "abc"))
    user.write("experiments/e/job.py", "raise SystemExit('another program')")
    user.commit("New code, which teardown must not run")
    user.write("experiments/e/job.py", "raise SystemExit('an edited program')")
    done = teardown(user, "--all")
    assert results(done) == dict.fromkeys("abc", "released") and done["clusters_left"] == 0
    with ThreadPoolExecutor(3) as pool:
        assert not any(CLUSTER in types for types in pool.map(user.resources, "abc"))
    assert user.query("SELECT stack, state, attempt, destroyed_at FROM experiment ORDER BY stack") == [
        (stack, "succeeded", 1, None) for stack in "abc"
    ]
    assert user.query("SELECT count(*) FROM run") == [(3,)]
    assert results(teardown(user, "--all")) == dict.fromkeys("abc", "nothing left")


def test_stacks_whose_file_is_not_in_the_working_tree_are_found_and_released(user: User) -> None:
    hold_clusters(user, "a", "b")
    for stack in "ab":
        (user.root / f"stacks/Pulumi.{stack}.yaml").unlink()
    user.commit("Another branch")
    assert teardown(user, "--all", "--dry-run")["clusters_left"] == 2
    assert results(teardown(user, "a")) == {"a": "released"}
    assert results(teardown(user, "--all")) == {"a": "nothing left", "b": "released"}
    assert not any(CLUSTER in user.resources(stack) for stack in "ab")
    assert not list(user.root.glob("stacks/Pulumi.[ab].yaml"))  # which Pulumi would write, with its salt alone
    assert "There is no stack 'c'" in user.ems("teardown", "c", "--yes", expect=2).stderr


def test_a_stack_that_the_database_does_not_know_is_never_certified(user: User) -> None:
    hold_clusters(user, "a")
    (user.root / ".ems/ems.db").rename(user.root / ".ems/another.db")
    user.ems("up", "lab")
    done = json.loads(user.ems("teardown", "--all", "--json", expect=5).stdout)
    assert done["clusters_left"] == 1 and "ems pulumi destroy --stack a" in results(done)["a"]
    user.pulumi("destroy", "--yes", "--skip-preview", "--stack", "a")
    assert teardown(user, "--all")["clusters_left"] == 0


def test_an_experiment_that_its_stack_file_reopens_ends_with_its_own_exit_code_and_without_a_cluster(
    user: User,
) -> None:
    user.experiment(trouble="/")
    user.ems("up", "e", expect=6)
    described = (user.root / "stacks/Pulumi.e.yaml").read_text()
    user.write("stacks/Pulumi.e.yaml", described.replace('"project": "first"', '"project": "first", "attempt": 2'))
    user.commit("Once more")
    user.ems("up", "e", expect=6)
    assert user.query("SELECT state, attempt FROM experiment") == [("failed", 2)]
    assert CLUSTER not in user.resources("e")


def test_the_certificate_names_time_cost_and_what_is_left(user: User) -> None:
    hold_clusters(user, "a")
    assert "1 cluster and 0 machines held; nothing was changed" in user.ems("teardown", "a", "--dry-run").stdout
    shown = user.ems("teardown", "a", "--yes").stdout
    assert "released" in shown and "UTC: nothing is left; spent $0.00" in shown
    assert set(teardown(user, "a")["stacks"][0]) == {"stack", "experiment_id", "state", "clusters_left", "result"}
    assert "--all" in user.ems("teardown", "--yes", expect=2).stderr


def test_a_running_experiment_is_kept_unless_forced(user: User) -> None:
    user.experiment(rows=600, pause_s=0.3)
    user.ems("up", "e", "--detach")
    user.wait(lambda: user.stored() > 1)
    assert results(teardown(user, "e", "--dry-run"))["e"].startswith("kept: running")
    assert results(teardown(user, "e", "--dry-run", "--force")) == {"e": "to be stopped and released"}
    kept = teardown(user, "e")
    assert results(kept)["e"].startswith("kept: running") and kept["clusters_left"] == 1 and kept["machines_left"] == 1
    assert user.state() == "running" and user.agents()
    forced = teardown(user, "e", "--force")
    assert results(forced) == {"e": "released"} and forced["clusters_left"] == forced["machines_left"] == 0
    rows = user.rows()
    assert user.state() == "cancelled" and rows == expected(len(rows)) and 1 < len(rows) < 600
    user.wait(lambda: not user.agents())


def test_stop_ends_the_run_that_another_process_watches(user: User) -> None:
    user.experiment(rows=600, pause_s=0.3)
    watching = user.start("up", "e")
    user.wait(lambda: user.stored() > 1)
    (stopped,) = json.loads(user.ems("stop", "e", "--json").stdout)
    assert stopped["state"] == "cancelled" and stopped["machines_left"] == 0
    assert watching.wait(PATIENCE_S) == 6
    assert "--retry" in user.said(watching)
    rows = user.rows()
    assert rows == expected(len(rows)) and len(rows) > 1
    assert CLUSTER not in user.resources()


def test_logs_can_be_followed_to_the_end(user: User) -> None:
    user.experiment(rows=600, pause_s=0.3)
    user.ems("up", "e", "--detach")
    with subprocess.Popen([*EMS, "logs", "e", "-f"], cwd=user.root, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout
        first = [following.stdout.readline() for _ in range(3)]
        assert user.state() == "running" and following.poll() is None
        user.ems("stop", "e")
        rest = following.stdout.read()
    assert following.returncode == 0
    assert first == ["--- attempt 1 ---\n", "row 0\n", "row 1\n"]
    lines = rest.splitlines()
    assert lines == [f"row {i}" for i in range(2, 2 + len(lines))]
