"""`ems check` as somebody uses it."""

from __future__ import annotations

import json

import pytest

from ems.lab import Lab
from tests.cli.running import files, run


def test_check_touches_nothing_and_finds_nothing_in_a_fresh_lab(here: Lab) -> None:
    before = files(here.root)
    done = run("check")
    assert done.stdout.startswith("✓ lab lab\n✓ pi experiment ")
    reports = json.loads(run("check", "--json").stdout)
    assert [report["stack"] for report in reports] == ["lab", "pi"]
    assert list(reports[0]) == ["stack", "summary", "problems", "warnings", "exit_code", "needs"]
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
