"""Files with one fault each, and what `ems check` says: file, line, key, value, what is allowed; and no other fault.

The tables are to grow: what passes and fails later, or is told in words that lead nowhere, goes into one of them.
"""

from __future__ import annotations

import pytest

from ems import clusters
from ems.engine import preflight
from ems.lab.stacks import StackFiles
from tests.conftest import commit

FAULTS = [  # what stands in the file of a new experiment, what instead, the line, the key, what is said
    ("title: pi", "title: 3", 3, "title", "is the number 3: allowed is text; quote it"),
    ("title: pi", "title: [a]", 3, "title", "is a list of 1: allowed is text"),
    ("title: pi", "titel: pi", 3, "titel", "did you mean title?"),
    ("title: pi", "title: true", 3, "title", 'quote it: "true"'),
    ("title: pi", "title: 2020-01-01", 3, "title", 'quote it: "2020-01-01"'),
    ("project: first", "project: frist", 4, "project", "did you mean first?"),
    ("project: first", "project: First", 4, "project", "did you mean first?"),
    ("project: first", "project:", 4, "project", "is empty (null)"),
    ("project: first", "projct: first", 4, "projct", "did you mean project?"),
    ("experimenter: me", "experimenter: you", 5, "experimenter", "allowed are me"),
    ("funding: unfunded", "funding: grant", 6, "funding", "allowed are unfunded"),
    ("paths: [experiments/pi]", "paths: experiments/pi", 8, "code.paths", "allowed is a list"),
    ("paths: [experiments/pi]", "paths: [/abs]", 8, "code.paths[0]", "starts with `/`"),
    ("paths: [experiments/pi]", "paths: [../x]", 8, "code.paths[0]", "has `..`"),
    ("paths: [experiments/pi]", "commit: abc", 8, "code.commit", "git rev-parse abc"),
    ("paths: [experiments/pi]", "repo: https://x/y", 7, "code.commit", "git ls-remote"),
    ("environment: pi", "environment: pie", 9, "environment", "did you mean pi?"),
    ("environment: pi", "enviroment: pi", 9, "enviroment", "did you mean environment?"),
    ("command: [python,", "comand: [python,", 10, "job", "did you mean command?"),
    ("command: [python, experiments/pi/main.py]", "command: []", 11, "job.command", "allowed is a list of words"),
    ("command: [python, experiments/pi/main.py]", "command: a | b", 11, "job.command", "no shell reads `|`"),
    ("experiments/pi/main.py]", "experiments/pi/man.py]", 11, "job.command", "code.paths do not hold"),
    ("points: 200000", "points: {a: 1}", 14, "job.parameters.points", "allowed is text, a number"),
    ("points: 200000", "points: .inf", 14, "job.parameters.points", "numbers are finite"),
    ("table: pi", "table: Pi", 16, "results.table", "lower-case"),
    *[
        ("table: pi", f"table: {name}", 16, "results.table", f"results_{name}")
        for name in ("run", "copied", "loaded_batch", "ix_experiment_newest", "sqlite_x", "pg_x")
    ],
    ("kind: laptop", "kind: lptop", 18, "cluster.kind", "did you mean laptop?"),
    ("kind: laptop", "stack: nosuch", 18, "cluster.stack", "which no stack file describes"),
    ("kind: laptop", "kind: laptop\n      worker: 2", 19, "cluster.worker", "did you mean workers?"),
    ("kind: laptop", "kind: laptop\n      workers: 0", 19, "cluster.workers", "allowed is a whole number of 1 or more"),
    ("max_hours: 1", "max_hours: '1'", 20, "limits.max_hours", "write it without quotes"),
    ("max_hours: 1", "max_hours: -1", 20, "limits.max_hours", "is -1: allowed is a number above 0"),
    ("max_hours: 1", "max_hours: 1\n    env: {EMS_X: a}", 21, "env.EMS_X", "belong to EMS"),
    ("max_hours: 1", "max_hours: 1\n    env: {X: {secure: a}}", 21, "env.X", "`secure:`"),
    ("max_hours: 1", "max_hours: 1\n    attempt: 0", 21, "attempt", "allowed is a whole number"),
]
WARNINGS = [
    ("seed: 1", "seed: no", 13, "job.parameters.seed", 'is the text "no", not true or false'),
    ("seed: 1", "seed: 0123", 13, "job.parameters.seed", 'octal number 83: write that, or quote it: "0123"'),
    ("seed: 1", f"seed: 0{'7' * 22}", 13, "job.parameters.seed", "decimal number 7.77"),
    ("paths: [experiments/pi]", "paths: []", 8, "code.paths", "is empty, which is all files but"),
    ("seed: 1", "seed: 1e400", 13, "job.parameters.seed", "no number is as large"),
    ("table: pi", "table: order", 16, "results.table", "a word of SQL"),
    ("max_hours: 1", "max_hours: 1\n    env: {PATH: /bin}", 21, "env.PATH", "python"),
    ("[python, experiments/pi/main.py]", "python experiments/pi/main.py a>b.txt", 11, "job.command", '"a>b.txt"'),
    ("funding: unfunded", "funding: old", 6, "funding", "expired on 2020-12-31"),
]
SILENT = [("seed: 1", "seed: 'no'"), ("seed: 1", "seed: '0123'"), ("seed: 1", "seed: 1e100"), ("seed: 1", "seed: 0")]
SILENT += [("seed: 1", "seed: 0.5"), ("seed: 1", "seed: 'a > b'"), ("table: pi", "table: orders")]


def report(here, old, new):
    for stack, before, after in (
        ("lab", "    funding:\n", "    funding:\n      old: {agency: a, expires: '2020-12-31'}\n"),
        ("pi", old, new),
    ):
        file = here.stack_file(stack)
        assert file.read_text().count(before) == 1, before
        if stack == "pi" or "old" in new:
            file.write_text(file.read_text().replace(before, after))
    commit(here.root)
    return preflight.report(StackFiles(here, clusters.settings()), "pi")


@pytest.mark.parametrize("old, new, line, key, said", FAULTS)
def test_a_fault_is_told_once_where_it_is(here, old, new, line, key, said):
    found = report(here, old, new)
    (problem,) = found.problems
    assert problem.startswith(f"{here.stack_file('pi')}:{line}: ems:experiment.{key}: ") and said in problem
    assert found.exit_code == 2


@pytest.mark.parametrize("old, new, line, key, said", WARNINGS)
def test_what_is_seldom_meant_is_a_warning(here, old, new, line, key, said):
    found = report(here, old, new)
    (warning,) = found.warnings
    assert warning.startswith(f"{here.stack_file('pi')}:{line}: ems:experiment.{key}: ") and said in warning
    assert found.problems == () and found.exit_code == 0


@pytest.mark.parametrize("old, new", SILENT)
def test_what_is_clear_is_passed_in_silence(here, old, new):
    found = report(here, old, new)
    assert found.problems == found.warnings == ()


def test_hints_about_the_lab(here):
    file = here.stack_file("lab")
    text = file.read_text()
    file.write_text(
        "\n".join(f"{line.partition(':')[0]}: nobody" if "email" in line else line for line in text.splitlines())
    )
    here.stack_file("second").write_text(text)
    found = preflight.report(StackFiles(here, clusters.settings()), "lab").warnings
    assert 'Pulumi.lab.yaml:7: ems:lab.experimenters.me.email: is "nobody", which is not an e-mail' in found[0]
    assert "2 stacks describe the lab (lab, second): lab counts" in found[1]
