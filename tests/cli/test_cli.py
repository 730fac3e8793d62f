"""The command line as somebody uses it, rightly and wrongly. What needs the engine is in end_to_end/."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import ems
from ems import databases
from ems.base import errors
from ems.cli import app as cli
from ems.cli import scaffold
from ems.databases import State
from ems.lab import Lab
from tests.cli.running import execute, files, run
from tests.conftest import ran, registered
from tests.databases.cases import batch, floats, ints, texts

STATUS_KEYS = [
    *["stack", "experiment_id", "state", "attempt", "points_done", "points_total", "points_failed", "commit"],
    *["environment", "experimenter", "project", "funding", "cluster", "machines_left", "cluster_declared"],
    *["cost_usd", "started_at", "finished_at", "error", "files_left", "platform", "imported"],
]


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


def test_the_help_groups_commands_as_one_needs_them_and_completion_comes_last() -> None:
    shown = run("--help").output
    words = ["--debug", "--install-completion", "─ Start", "│ init", "─ Run", "│ up", "│ stop", "│ pulumi", "─ Look"]
    words += ["│ status", "─ Read", "│ results", "─ Clean up", "│ teardown", "Exit codes"]
    places = [shown.index(f"{word}") for word in words]
    assert places == sorted(places) and "─ Commands" not in shown


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


ANY_COMMANDS = """status · results pi · results pi --format csv · results pi --format json · status --json · failures pi
· watch · check · env check pi · --help · nosuch"""


@pytest.mark.parametrize("words", [words.split() for words in ANY_COMMANDS.split("·")])
def test_no_letter_that_a_terminal_lacks_ends_a_command(words: list[str], here: Lab) -> None:
    """Nobody's letters are refused: each is shown by a stand-in, and data for programs stay exact."""
    ran(here, batch([0], floats("x", 1.5), texts("name", "caf\u00e9 \u7814\u7a76")), error="caf\u00e9")
    done = execute(*words, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "UnicodeEncodeError" not in done.stderr and "fault of EMS" not in done.stderr
    if "--json" in words:
        assert json.loads(done.stdout)[0]["error"] == "caf\u00e9"
    if "--format" in words:
        assert "caf\u00e9 \u7814\u7a76" in done.stdout


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


@pytest.mark.parametrize(
    "words, shows",
    [
        ("--state failed --state running", False),
        ("--state succeeded --project first --experimenter me --since 1h --limit 1", True),
        ("--since 2020-01-31", True),
        ("--since 2999-01-31T14:00", False),
        ("--mine", True),
    ],
)
def test_status_of_some(here: Lab, words: str, shows: bool) -> None:
    experiment = ran(here)
    person = databases.Experimenter(experiment.registration.experimenter, "Me", email="Ems@localhost")
    subprocess.run(["git", "config", "user.email", "ems@localhost"], cwd=here.root, check=True)
    with closing(databases.connect(here.database_url, here.root)) as database:
        database.upsert(person)
    done = run("status", *words.split())
    assert ("succeeded" in done.stdout, "Of 1 experiment none is such" in done.stderr) == (shows, not shows)
    assert len(json.loads(run("status", "--json", *words.split()).stdout)) == shows


@pytest.mark.parametrize(
    "words, says",
    [
        ("--project fist", 'No experiment is of the project "fist": did you mean first?'),
        ("--experimenter you", 'No experiment is of the experimenter "you": allowed are me'),
        ("--since yesterday", '--since is "yesterday": neither a time span nor a date.'),
        ("--mine", 'No experimenter of the lab has the e-mail address "nobody@localhost"'),
        ("--mine", "git's user.email. Name yourself: --experimenter ID, of me"),
        ("--mine --experimenter me", "two answers to one question"),
        ("--state finished", '--state is "finished": allowed are cancelled'),
        ("--limit 0", "greater than or equal to 1"),
    ],
)
def test_status_of_what_cannot_be_is_refused(here: Lab, words: str, says: str) -> None:
    ran(here)
    subprocess.run(["git", "config", "user.email", "nobody@localhost"], cwd=here.root, check=True)
    assert says in " ".join(run("status", *words.split(), expect=2).stderr.split())


def test_status_of_several_shows_those_that_have_run(here: Lab) -> None:
    ran(here)
    scaffold.new(here, "other")
    done = run("status", "pi", "other")
    assert "succeeded" in done.stdout and "Stack 'other' has no experiment" in done.stderr
    assert "There is no stack 'nosuch'" in run("status", "pi", "nosuch", expect=2).stderr
    assert "runs nothing" in run("status", "pi", "lab", expect=2).stderr


def test_stop_of_a_finished_one_says_so(here: Lab) -> None:
    ran(here)
    done = run("stop", "pi", "--json")
    assert "pi has succeeded already" in done.stderr
    assert json.loads(done.stdout)[0]["state"] == "succeeded"


def test_stop_of_what_never_ran_cancels_it(here: Lab) -> None:
    registered(here)
    assert json.loads(run("stop", "pi", "--json").stdout)[0]["state"] == "cancelled"


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
    assert [finding["name"] for finding in findings[-4:]] == ["plugin", "project", "database", "store"]
    assert all(finding["ok"] and finding["detail"] for finding in findings)
    monkeypatch.chdir("/")
    shown = run("doctor", expect=1).stdout
    assert shown.count("not in a lab") == 1 and "ems init DIR" in shown and "✓ git" in shown
    assert "who you are" not in shown
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    assert (
        "git config --global user.name 'Your Name' && git config --global user.email" in run("doctor", expect=1).stdout
    )


def test_env_commands(here: Lab, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))
    folder = here.root / "environments/pi"
    assert "allowed are pi" in run("env", "check", "nosuch", expect=2).stderr
    assert run("env", "check", "pi").stdout.startswith("✓ pi is fully pinned: 0 packages for Python 3.")
    built = Path(run("env", "build", "pi").stdout.strip())
    assert (built / "bin/python").exists()
    (folder / "requirements.txt").write_text("numpy\nmatplotlib==3.9.0\n")
    done = run("env", "check", "pi", expect=3)
    assert "requirements.txt:1: 'numpy' is not pinned" in done.stdout and "matplotlib renders" in done.stdout
    assert "warning: environments/pi" in done.stdout
    assert "ems env lock pi" in run("env", "build", "pi", expect=3).stderr
    (folder / "requirements.txt").write_text("")
    (folder / "requirements.in").write_text("numpy\n")
    shown = run("env", "check", "pi").stdout
    assert "wishes numpy, which the lock does not have" in shown and "✓" not in shown
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


def test_names_of_experiments_differ_by_more_than_case(here: Lab) -> None:
    assert "already pi, which differs only by case" in run("new", "Pi", expect=2).stderr


def test_a_stack_that_runs_nothing_has_no_results(here: Lab) -> None:
    ran(here, batch([0], ints("x", 1)))
    assert "Stack lab describes the lab, and runs nothing." in run("results", "lab", expect=2).stderr
