"""What programs leave beside their rows, from `ems up` to `ems clean`."""

from __future__ import annotations

import json

from tests.end_to_end.conftest import User

PROGRAM = """
import pathlib
pathlib.Path("plots").mkdir()
pathlib.Path("plots/fit.png").write_bytes(b"x" * 1500)
with open("final_results.txt", "a") as file:
    for k in range(5):
        print(k, k / 2, file=file)
"""


def described(user: User, results: object) -> None:
    """The stack `e`, whose program writes files of its own names."""
    user.experiment()
    file = user.root / "stacks/Pulumi.e.yaml"
    said = json.loads(file.read_text())
    said["config"]["ems:experiment"] |= {"results": results}
    said["config"]["ems:experiment"]["job"] = {"command": ["python", "experiments/e/job.py"]}
    user.write("stacks/Pulumi.e.yaml", json.dumps(said, indent=2))
    user.write("experiments/e/job.py", PROGRAM)
    user.commit("A program of its own")


def left(user: User) -> list[str]:
    return sorted(path.name for path in (user.root / ".ems/runs").glob("*/left/*/**/*") if path.is_file())


def test_what_a_program_leaves_is_told_kept_declared_and_cleaned(user: User) -> None:
    described(user, {"table": "e"})
    told = user.ems("up", "e").stdout
    assert "0 rows" in told and "final_results.txt" in told and "plots/fit.png (1.5 kB)" in told
    assert "files: [final_results.txt]" in told
    assert 'format: {type: csv, delimiter: " ", header: [c1, c2]}' in told
    user.ems("teardown", "e", "--yes")
    assert left(user) == ["final_results.txt", "fit.png"]

    described(user, {"table": "e", "files": ["final_results.txt"],
                     "format": {"type": "csv", "delimiter": " ", "header": ["i", "value"]}})  # fmt: skip
    assert "1 file left" in user.ems("up", "e").stdout
    assert user.rows() == [(k, k / 2) for k in range(5)]
    shown = user.ems("status", "e").stdout
    assert "plots/fit.png (1.5 kB)" in shown and "ems clean e" in shown
    (status,) = json.loads(user.ems("status", "e", "--json").stdout)
    assert [(file["name"], file["bytes"]) for file in status["files_left"]] == [("plots/fit.png", 1500)]

    assert "Nobody is there" in user.ems("clean", "e", expect=2).stderr
    planned = json.loads(user.ems("clean", "e", "--dry-run", "--json").stdout)
    assert [each["result"] for each in planned] == ["to be removed"] * 2
    assert left(user) == ["final_results.txt", "fit.png", "fit.png"]
    assert "3 files" in user.ems("clean", "e", "--yes").stderr
    assert left(user) == []
    assert "Left unread" not in user.ems("status", "e").stdout
    assert "Nothing was left" in user.ems("clean", "e").stderr


def test_a_job_without_rows_says_so(user: User) -> None:
    described(user, {"table": "e"})
    user.ems("up", "e")
    described(user, "none")
    assert "2 files left" in user.ems("up", "e").stdout
    assert user.query("SELECT count(*), max(results_table) FROM experiment") == [(1, "")]
    assert user.query("SELECT count(*) FROM run") == [(1,)]
    assert "results: none" in user.ems("results", "e", expect=2).stderr
