"""`job:` with a command and a sweep: placeholders, and what cannot be filled in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.stack.models import CommandJob, CommandSweepJob
from ems.sweep import placeholders
from tests.stack.specs import EXPERIMENT, changed, experiment, faults

GRID = {"command": ["python", "train.py", "--lr={lr}", "--out", "{results}/{seed}.csv"]}
GRID |= {"sweep": {"lr": [0.1, 0.2], "seed": [1, 2]}}


def test_a_command_with_a_sweep_is_a_grid_of_programs():
    job = experiment("job", GRID | {"parameters": {"n": 3}, "retries": 2}).job
    assert isinstance(job, CommandSweepJob)
    assert (job.protocol, job.threads, job.retries, job.max_failures, job.memory_mb) == ("process", 1, 2, None, None)
    assert job.command[2] == "--lr={lr}"
    assert isinstance(experiment("title", "x").job, CommandJob)


def test_numbers_in_a_list_are_words():
    command = experiment("job/command", ["python", "fit.py", 0.1, -3, 2.0, 1e-7, 10**15]).job.command
    assert command == ("python", "fit.py", "0.1", "-3", "2", "1e-07", "1000000000000000")


def test_words_may_have_lines():
    assert experiment("job/command", ["bash", "-c", "a\n\tb"]).job.command[2] == "a\n\tb"
    assert experiment("env", {"A": "a\nb 'c' \"d\""}).env["A"].startswith("a\n")


@pytest.mark.parametrize(
    "change, key, said",
    [
        ({"command": "python x.py {lr"}, "job.command", "has a lone `{`: allowed is a placeholder, as {lr}; double"),
        ({"command": ["x", "a}"]}, "job.command[1]", "has a lone `}`"),
        (
            {"command": ["x", "{LR}"]},
            "job.command[1]",
            "has {LR}, which is not a parameter of the sweep: did you mean lr?",
        ),
        ({"command": ["x", "{}"]}, "job.command[1]", "lone"),
        (
            {"sweep": [{"lr": [1.0]}, {"seed": [1], "lr": [2.0]}]},
            "job.command[4]",
            "has {seed}, which 1 of the 2 grids",
        ),
        ({"sweep": {"lr": [1.0], "seed": [1], "results": [1]}}, "job.sweep.results", "as the placeholder"),
        ({"parameters": {"LR": 1}}, "job.parameters.LR", "is a parameter of the sweep too, as lr"),
        ({"parameters": {"n": [1]}, "command": ["x", "{n}"]}, "job.command[1]", "allowed is text, a number or a bool"),
        ({"command": ["x", "$EMS_RESULTS_DIR/a.csv"]}, "job.command[1]", "no shell expands here: write {results}"),
        ({"command": ["x", "${EMS_RESULTS_DIR}"]}, "job.command[1]", "no shell expands here"),
        ({"protocol": "line"}, "job.protocol", 'is "line": did you mean lines?'),
        ({"protocol": "lines"}, "job.command[2]", "reads the parameters from standard input"),
        ({"command": ["x"], "memory": 3}, "job.memory", "did you mean memory_mb?"),
        ({"command": ["x"], "function": "a:b"}, "job", "has both command and function"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(change, key, said):
    found = faults("experiment", changed(EXPERIMENT, "job", GRID | change))
    assert said in found[f"ems:experiment.{key}"]


def test_variables_are_filled_in_too():
    data = changed(EXPERIMENT, "job", GRID) | {"env": {"A": "{seed}", "B": "{sed}"}}
    assert list(faults("experiment", data)) == ["ems:experiment.env.B"]


def test_a_command_without_a_grid_keeps_its_braces_but_the_folder_of_results_is_filled_in():
    assert experiment("job/command", ["awk", "{print $1}"]).job.command == ("awk", "{print $1}")
    words = ["{results}/a", "{{results}}", "{lr}", "${results}"]
    assert [placeholders.in_plain(word, "/r") for word in words] == ["/r/a", "{results}", "{lr}", "$/r"]
    said = faults("experiment", changed(EXPERIMENT, "job/command", ["./fit", "$EMS_RESULTS_DIR"]))
    assert "write {results}" in said["ems:experiment.job.command[1]"]
    assert experiment("job/command", ["bash", "-c", "./fit $EMS_RESULTS_DIR"]).job.command[2].startswith("./fit")


@given(st.lists(st.one_of(st.text(), st.just("{a}"), st.sampled_from(["{", "}", "{{", "}}"]))))
def test_a_doubled_brace_is_a_brace_whatever_stands_beside_it(parts):
    word = "".join(part if part == "{a}" else part.replace("{", "{{").replace("}", "}}") for part in parts)
    meant = "".join("<value>" if part == "{a}" else part for part in parts)
    assert placeholders.filled(placeholders.parse(word), {"a": "<value>"}) == meant


@pytest.mark.parametrize(
    "value, text",
    [
        (1, "1"),
        (-1, "-1"),
        (0.1, "0.1"),
        (1.0, "1.0"),
        (1e-5, "1e-05"),
        (1e22, "1e+22"),
        (True, "true"),
        ("--x", "--x"),
    ],
)
def test_values_as_text(value, text):
    assert placeholders.text_of(value) == text
