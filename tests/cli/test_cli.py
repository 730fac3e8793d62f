"""The command line as somebody uses it, rightly and wrongly. What needs the engine is in end_to_end/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

import ems
from ems import databases
from ems.base import errors
from ems.cli import app as cli
from ems.databases import Outcome, State
from ems.lab import Lab
from tests.conftest import ran, registered
from tests.databases.cases import batch, floats, ints, texts

PROGRAM = (sys.executable, "-m", "ems.cli")
STATUS_KEYS = [
    *["stack", "experiment_id", "state", "attempt", "points_done", "points_total", "points_failed", "commit"],
    *["environment", "experimenter", "project", "funding", "cluster", "machines_left", "cost_usd", "started_at"],
    *["finished_at", "error", "platform"],
]


def run(*words: str, expect: int = 0, stdin: str | None = None):
    done = CliRunner().invoke(cli.app, list(words), input=stdin, prog_name="ems")
    assert done.exit_code == expect, (done.exit_code, done.output, done.exception)
    return done


def execute(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def files(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in root.rglob("*")
        if path.is_file()
    }


def commands() -> dict[str, str]:
    """Each command with the help that its function carries."""
    groups = {"": cli.app, "env ": cli.environments, "database ": cli.database_commands}
    return {
        f"{prefix}{info.name or info.callback.__name__}": f"{info.callback.__doc__}{info.epilog}"
        for prefix, group in groups.items()
        for info in group.registered_commands
        if info.callback
    }


# Help, version, errors


@pytest.mark.parametrize("command", commands())
def test_each_command_teaches_by_an_example(command: str) -> None:
    shown = run(*command.split(), "--help").output
    assert f"ems {command}" in shown.partition("Example")[2]
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_the_help_names_each_exit_code_and_debug() -> None:
    shown = run("--help").output
    classes = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, Exception)]
    for code in {0, 130, *(found.exit_code for found in classes)}:
        assert f"  {code} " in shown.partition("Exit codes")[2]
    assert "--debug" in shown and "--version" in shown


def test_the_errors_page_says_the_same_as_the_classes() -> None:
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("├", "").replace("└", "").replace("─", "").replace("│", "").split()
        if len(words) > 1 and words[1].isdigit():
            assert getattr(errors, words[0]).exit_code == int(words[1])


def test_version() -> None:
    assert run("--version").output == f"ems {ems.__version__}\n"


@pytest.mark.parametrize("words", [["--debug", "status"], ["status", "--debug"], ["status", "pi", "--debug"]])
def test_debug_shows_the_traceback_anywhere_on_the_line(words: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    plain = run(*(word for word in words if word != "--debug"), expect=2)
    assert "not in a lab" in plain.stderr and "ems init" in plain.stderr and "Traceback" not in plain.stderr
    assert "Traceback" in run(*words, expect=2).stderr


def test_debug_after_pulumi_is_pulumis_own() -> None:
    context = cli.typer.main.get_command(cli.app).make_context("ems", ["pulumi", "up", "--debug"])
    assert not context.params["debug"]
    assert cli.typer.main.get_command(cli.app).make_context("ems", ["--debug", "pulumi", "up"]).params["debug"]


def test_an_unexpected_exception_is_said_to_be_a_fault_of_ems(here: Lab) -> None:
    script = "from ems import lab\nfrom ems.cli import app\nlab.find = lambda: 1 / 0\napp.main()"
    for words, traceback in ((["status"], False), (["status", "--debug"], True)):
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, cwd=here.root
        )
        assert done.returncode == 1
        assert "a fault of EMS itself: ZeroDivisionError: division by zero" in done.stderr and "--debug" in done.stderr
        assert ("Traceback" in done.stderr) is traceback


def test_what_this_machine_refuses_is_no_fault_of_ems(here):
    experiment = ran(here)
    file = here.run_dir(experiment.id) / "job.log"
    file.mkdir(parents=True)
    done = execute("logs", "pi")
    assert done.returncode == 1 and "This machine refused:" in done.stderr and "fault of EMS" not in done.stderr
    assert str(file) in "".join(done.stderr.split()) and "Is a directory" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("code", "hint"), [(13, "another user's"), (30, "read-only"), (28, "Free some space"), (20, "ls -ld")]
)
def test_what_was_refused_says_where_and_what_to_do(code, hint):
    error = errors.refused(OSError(code, os.strerror(code), "/somewhere"))
    assert "/somewhere" in error.message and os.strerror(code) in error.message and hint in error.hint


@pytest.mark.parametrize("words", [["nosuch"], ["status", "--nosuch"], ["logs"], ["env", "nosuch"]])
def test_wrong_words_on_the_line_exit_with_2(words: list[str]) -> None:
    done = execute(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "ems" in done.stderr


# Labs that are none, or broken


@pytest.mark.parametrize(
    "words",
    [
        *[["new", "x"], ["check"], ["up"], ["stop", "x"], ["status"], ["logs", "x"], ["results", "x"]],
        *[["teardown", "--all", "--yes"], ["pulumi", "version"], ["env", "check", "x"]],
    ],
)
def test_outside_a_lab_each_command_says_so(words: list[str], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words, expect=2)
    assert str(tmp_path) in done.stderr and "ems init DIR" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["stop", "status", "logs", "results", "up", "check"])
def test_an_unknown_stack_exits_with_2_and_names_the_nearest(command: str, here: Lab) -> None:
    for prepare in (lambda: None, lambda: registered(here)):  # without tables, and with them
        prepare()
        done = run(command, "pii", expect=2)
        assert "did you mean pi? allowed are lab, pi" in done.output


@pytest.mark.parametrize("command", ["stop", "status", "logs", "results"])
def test_a_stack_that_was_never_registered_exits_with_4(command: str, here: Lab) -> None:
    done = run(command, "pi", expect=4)
    assert "no tables yet" in done.stderr and "ems up" in done.stderr
    assert not (here.root / ".ems/ems.db").exists()
    registered(here)
    (here.stack_file("other")).write_text(here.stack_file("pi").read_text())
    assert "ems up other" in run(command, "other", expect=4).stderr


def test_a_stack_whose_file_is_gone_is_still_shown(here: Lab) -> None:
    ran(here)
    here.stack_file("pi").unlink()
    assert json.loads(run("status", "pi", "--json").stdout)[0]["stack"] == "pi"


@pytest.mark.parametrize(
    "url, code, part",
    [
        ("oracle://x", 2, "sqlite://…"),
        ("sqlite:///stacks", 4, "cannot be opened"),
        ("sqlite:///README.md", 4, "is not an SQLite database"),
        ("sqlite:////nonexistent/x.db", 4, "no tables yet"),
    ],
)
def test_a_wrong_database_url_is_told(url: str, code: int, part: str, here: Lab) -> None:
    file = here.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace("sqlite:///.ems/ems.db", url))
    for words in (["status"], ["results", "pi"]):
        done = run(*words, expect=code)
        assert part in done.stderr and "Traceback" not in done.stderr
    assert part in run("doctor", expect=1).stdout


def test_up_in_a_lab_without_its_plugin_says_how_to_get_it_back(here: Lab) -> None:
    (here.root / "plugins/pulumi-resource-ems").unlink()
    done = run("check", "lab", expect=2)
    assert "plugins/pulumi-resource-ems is not a program" in done.stdout and "checkout HEAD -- plugins" in done.stdout


def test_a_lab_without_stacks_says_how_to_make_one(here: Lab) -> None:
    for file in here.stacks_dir.glob("*.yaml"):
        file.unlink()
    assert "ems new NAME" in run("check", expect=2).stderr


# status


def test_the_shape_of_status(here: Lab) -> None:
    experiment = ran(here, batch([0, 0], floats("x", 1.5, 2.5), rows=[0, 1]))
    (shown,) = json.loads(run("status", "--json").stdout)
    assert list(shown) == STATUS_KEYS
    assert shown["platform"] == "not recorded"
    assert shown["experiment_id"] == experiment.id and shown["state"] == "succeeded" and shown["commit"]
    assert [type(shown[key]) for key in ("points_done", "points_total", "cost_usd", "error")] == [int, int, float, str]
    assert shown["started_at"].endswith("+00:00") and shown["finished_at"].endswith("+00:00")
    assert json.loads(run("status", "pi", "--json").stdout) == [shown]


def test_status_of_no_experiments_is_an_empty_list(here: Lab) -> None:
    with closing(databases.connect(here.database_url, here.root)) as database:
        database.create()
    assert json.loads(run("status", "--json").stdout) == []
    assert "ems up" in run("status").stderr


def test_status_tells_what_failed(here: Lab) -> None:
    ran(here, state=State.FAILED, error="exit code 1: [red] was there")
    shown = run("status").stdout
    assert "pi: exit code 1: [red] was there" in shown and "\x1b" not in shown


def test_stop_of_a_finished_one_says_so(here: Lab) -> None:
    ran(here)
    done = run("stop", "pi", "--json")
    assert "pi has succeeded already" in done.stderr
    assert json.loads(done.stdout)[0]["state"] == "succeeded"


def test_stop_of_what_never_ran_cancels_it(here: Lab) -> None:
    registered(here)
    assert json.loads(run("stop", "pi", "--json").stdout)[0]["state"] == "cancelled"


# results


def test_results_of_an_experiment_without_rows(here: Lab) -> None:
    registered(here)
    assert "no rows yet" in run("results", "pi").stdout
    done = run("results", "pi", "--format", "csv")
    assert done.stdout == "" and "0 rows" in done.stderr
    assert json.loads(run("results", "pi", "--format", "json").stdout) == []


def test_results_on_standard_output(here: Lab) -> None:
    ran(here, batch([0, 0], texts("[red]name", "é", "[bold]"), floats("x", 0.1, None), rows=[0, 1]))
    assert run("results", "pi", "--format", "csv").stdout == 'point,row,"[red]name",x\n0,0,"é",0.1\n0,1,"[bold]",\n'
    assert run("results", "pi", "--format", "csv", "--columns", "x").stdout == "point,row,x\n0,0,0.1\n0,1,\n"
    assert "no column 'y'" in run("results", "pi", "--columns", "x,y", "--format", "csv", expect=4).stderr
    rows = json.loads(run("results", "pi", "--format", "json").stdout)
    assert rows[1] == {"point": 0, "row": 1, "[red]name": "[bold]", "x": None}
    assert all(part in run("results", "pi").stdout for part in ("[red]name", "[bold]", "é", "0.1"))


def test_results_of_some_rows(here: Lab) -> None:
    ran(here, batch([0, 1, 2], ints("m", 60, 120, 60), floats("x", 0.5, 1.5, 2.5)))
    csv = ["results", "pi", "--format", "csv"]
    assert run(*csv, "--where", "x >= 1").stdout == "point,row,m,x\n1,0,120,1.5\n2,0,60,2.5\n"
    assert run(*csv, "--where", "x >= 1", "--where", "m=60", "--columns", "x").stdout == "point,row,x\n2,0,2.5\n"
    assert (
        "rows with m = 60 and x < 1.0; 4 columns" in run("results", "pi", "--where", "m=60", "--where", "x<1.").stdout
    )
    assert "no row fulfils x is null" in run("results", "pi", "--where", "x is null").stdout
    assert "COLUMN OPERATOR VALUE" in run("results", "pi", "--where", "x => 1", expect=2).stderr
    assert "no column 'y'" in run("results", "pi", "--where", "y = 1", expect=4).stderr
    assert "'x' is float64" in run("results", "pi", "--where", "x = 'a'", expect=4).stderr


@pytest.mark.parametrize("words", [["--format", "xls"], ["--out", "rows.xls"], ["--out", "rows"]])
def test_an_unknown_format_names_the_known_ones(words: list[str], here: Lab) -> None:
    done = run("results", "pi", *words, expect=2)
    assert "csv, json, parquet" in done.stderr


@pytest.mark.parametrize("name", ["missing/rows.csv", "missing/rows.parquet", "stacks.csv"])
def test_a_file_that_cannot_be_written_leaves_nothing(name: str, here: Lab) -> None:
    ran(here, batch([0], ints("i", 1)))
    (here.root / "stacks.csv").mkdir()
    before = sorted(here.root.iterdir())
    done = run("results", "pi", "--out", name, expect=2)
    assert name in done.stderr and "cannot be written" in done.stderr
    assert sorted(here.root.iterdir()) == before


def test_a_reader_that_goes_away_ends_the_command_quietly(here: Lab) -> None:
    wide = batch([0] * 20_000, floats("x", *[0.1] * 20_000), rows=list(range(20_000)))
    ran(here, wide)
    with subprocess.Popen(
        [*PROGRAM, "results", "pi", "--format", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "point,row,x\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


# logs


def test_logs_follow_a_running_job_to_its_end(here: Lab, capsys) -> None:
    experiment = ran(here, state=None)
    log = here.run_dir(experiment.id) / "job.log"
    log.parent.mkdir(parents=True)
    log.write_text("first\n")

    def go_on() -> None:
        time.sleep(0.7)
        log.write_text("first\nsecond\n")
        with closing(databases.connect(here.database_url, here.root)) as database:
            claim = database.claim(experiment.id, agent="agent", lease_s=3600)
            assert claim
            database.release(claim, Outcome(State.SUCCEEDED, 1, 0))

    assert run("logs", "pi").stdout == "first\n"
    job = threading.Thread(target=go_on)
    job.start()
    assert run("logs", "pi", "-f").stdout == "first\nsecond\n"
    job.join()


def test_logs_before_a_run_and_on_another_machine(here: Lab) -> None:
    registered(here)
    assert "ems up pi" in run("logs", "pi", expect=4).stderr
    ran(here)
    assert "not on this machine: it ran as agent" in run("logs", "pi", expect=2).stderr


# teardown


def test_teardown_wants_to_know_which_stacks(here: Lab) -> None:
    assert "--all" in run("teardown", "--yes", expect=2).stderr
    assert "--all" in run("teardown", "pi", "--all", "--yes", expect=2).stderr


def test_teardown_asks_nobody_without_a_terminal(here: Lab) -> None:
    registered(here)
    before = files(here.root)
    done = execute("teardown", "--all")
    assert done.returncode == 2 and "--yes" in done.stderr
    assert files(here.root) == before


# check


def test_check_touches_nothing_and_finds_nothing_in_a_fresh_lab(here: Lab) -> None:
    before = files(here.root)
    done = run("check")
    assert done.stdout.startswith("✓ lab lab\n✓ pi experiment ")
    reports = json.loads(run("check", "--json").stdout)
    assert [report["stack"] for report in reports] == ["lab", "pi"]
    assert list(reports[0]) == ["stack", "summary", "problems", "warnings", "exit_code"]
    assert files(here.root) == before and not (here.root / ".ems").exists()


def test_check_tells_all_faults_of_all_stacks(here: Lab) -> None:
    text = here.stack_file("pi").read_text()
    for old, new in {
        "title: pi": "titel: pi",
        "max_hours: 1": "max_hours: -1",
        "kind: laptop": "kind: lptop",
        "environment: pi": "environment: [x]",
        "table: pi": "table: Pi",
    }.items():
        text = text.replace(old, new)
    here.stack_file("pi").write_text(text)
    here.stack_file("lab").write_text("config: {}\n")
    done = run("check", expect=2)
    for part in ("titel", "max_hours", "lptop", "environment", "results.table", "none of the three kinds"):
        assert part in done.stdout
    assert done.stdout.count("Pulumi.pi.yaml:") == 5
    lab, pi = json.loads(run("check", "--json", expect=2).stdout)
    assert len(lab["problems"]) == 1 and len(pi["problems"]) == 5 and {lab["exit_code"], pi["exit_code"]} == {2}


@pytest.mark.parametrize("name", ["a b", "pı", "研究", "", "-x", ".x", "x" * 101])
def test_names_that_pulumi_refuses_are_refused_by_check_and_nothing_is_left(name: str, here: Lab) -> None:
    here.stack_file(name).write_text(here.stack_file("pi").read_text())
    before = files(here.root)
    done = run("check", expect=2)
    assert "the stack's name is" in done.stdout and "rename this file" in done.stdout
    assert "the stack's name is" in run("up", "--", name, expect=2).stderr
    assert files(here.root) == before


def test_a_stack_may_be_named_by_its_file(here: Lab) -> None:
    assert run("check", "stacks/Pulumi.pi.yaml").stdout.startswith("✓ pi experiment")
    assert "did you mean pi?" in run("check", "PI", expect=2).stdout


@pytest.mark.parametrize("place", ["stacks/Pulumi.second.yml", "Pulumi.second.yaml", "stacks/Pulumi.second.json"])
def test_a_file_that_nobody_reads_is_named(place: str, here: Lab) -> None:
    (here.root / place).write_text("config: {}\n")
    shown = run("check", expect=2).stdout
    assert f"✗ second\n  {place}: is read by nobody" in shown and f"mv {place} stacks/Pulumi.second.yaml" in shown
    here.stack_file("second").write_text(here.stack_file("pi").read_text())
    shown = run("check", expect=3).stdout
    assert f"allowed is stacks/Pulumi.second.yaml, which is there too: rm {place}" in " ".join(shown.split())


# other commands


def test_the_schema_describes_the_keys_of_stack_files() -> None:
    schema = json.loads(run("schema").stdout)
    experiment = schema["properties"]["config"]["properties"]["ems:experiment"]
    model = schema["$defs"][experiment["$ref"].rpartition("/")[2]]
    assert {"project", "experimenter", "funding", "job"} <= set(model["required"])
    assert not model["additionalProperties"] and model["properties"]["title"]


def test_doctor_outside_and_inside_a_lab(here: Lab, monkeypatch) -> None:
    registered(here)
    findings = json.loads(run("doctor", "--json").stdout)
    assert [finding["name"] for finding in findings[-4:]] == ["lab", "plugin", "project", "database"]
    assert all(finding["ok"] and finding["detail"] for finding in findings)
    monkeypatch.chdir("/")
    shown = run("doctor", expect=1).stdout
    assert shown.count("not in a lab") == 1 and "ems init DIR" in shown and "✓ git" in shown


def test_env_commands(here: Lab, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))
    folder = here.root / "environments/pi"
    assert "allowed are pi" in run("env", "check", "nosuch", expect=2).stderr
    assert run("env", "check", "pi").stdout.startswith("pi is fully pinned: 0 packages for Python 3.")
    built = Path(run("env", "build", "pi").stdout.strip())
    assert (built / "bin/python").exists()
    (folder / "requirements.txt").write_text("numpy\nmatplotlib==3.9.0\n")
    done = run("env", "check", "pi", expect=3)
    assert "requirements.txt:1: 'numpy' is not pinned" in done.stdout and "matplotlib renders" in done.stdout
    assert "ems env lock pi" in run("env", "build", "pi", expect=3).stderr
    (folder / "requirements.in").unlink()
    assert "requirements.in is missing" in run("env", "lock", "pi", expect=3).stderr


def test_colours_only_where_there_is_a_terminal(here: Lab) -> None:
    ran(here, state=State.FAILED, error="x")
    assert "\x1b" not in execute("status").stdout
    assert "\x1b[31m" in execute("status", FORCE_COLOR="1").stdout
    assert "\x1b[31m" not in execute("status", FORCE_COLOR="1", NO_COLOR="1").stdout


def test_what_is_said_is_shown_as_it_is(here: Lab) -> None:
    file = here.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace(here.database_url, "'dynamodb://[red] :secret:'"))
    shown = execute("database", "check")
    assert shown.returncode and ":secret:" in shown.stderr and "[red]" in shown.stderr
