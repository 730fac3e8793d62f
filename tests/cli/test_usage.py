"""Wrong words on the command line: one error, what is allowed, and exit code 2, as of all other wrong input."""

from __future__ import annotations

import pytest

from tests.cli.running import execute, run
from tests.test_guards import commands

NEEDY = [name for name, command in commands() if any(each.required for each in command.params)]


@pytest.mark.parametrize("name", NEEDY)
def test_a_word_that_is_missing_is_named_with_its_meaning_and_an_example(name: str) -> None:
    said = run(*name.split()[1:], expect=2).stderr
    assert said.startswith(f"error: {name} lacks ") and f"For example: {name} " in said and f"{name} --help" in said
    assert "╭" not in said and "Usage" not in said


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("import runs.csv", ["ems import lacks --as NAME: name that the experiment is to have."]),
        ("points", ["ems points lacks STACK: name of a stack: stacks/Pulumi.STACK.yaml."]),
        ("points a b", ["ems points: ", "extra argument", "(b)"]),
        ("up --detahc", ["ems up has no option --detahc: did you mean --detach? allowed are --at-once, "]),
        ("up --at-once 0", ["ems up: --at-once is ", "0", "1"]),
        ("status --state done", ['ems status: --state is "done": ', "allowed are cancelled, ", "succeeded"]),
        ("import x --as", ["--as"]),
        ("resluts", ['ems has no command "resluts": did you mean results? allowed are check, ']),
        ("env lok", ['ems env has no command "lok": did you mean lock?']),
        ("--nosuch", ["ems has no option --nosuch: allowed are --debug, "]),
    ],
)
def test_what_is_wrong_is_told_with_what_is_allowed(words: str, parts: list[str]) -> None:
    said = run(*words.split(), expect=2).stderr
    assert said.startswith("error: ") and all(part in said for part in parts), said
    assert "╭" not in said and "Usage" not in said


@pytest.mark.parametrize("words", [[], ["env"]])
def test_without_a_word_commands_are_listed(words: list[str]) -> None:
    done = execute(*words)
    assert done.returncode == 2 and "error" not in done.stderr and "Usage: ems" in done.stdout + done.stderr
