"""`Pulumi.yaml` as the engine takes it: what `ems check` passes, the engine takes."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ems.base.errors import StackFileError
from ems.base.process import CommandFailed
from ems.engine.runner import Pulumi
from ems.lab import Lab, project
from tests.lab.test_project import CHANGES, GOOD, changed


@pytest.fixture
def pulumi(here: Lab) -> Pulumi:
    found = Pulumi.of(here)
    found.quietly("stack", "init", "--no-select", "--stack", "lab")
    return found


def test_what_check_passes_runs(pulumi: Pulumi) -> None:
    file = pulumi.lab.root / "Pulumi.yaml"
    text = file.read_text()
    for old, new in GOOD:
        changed(pulumi.lab, old, new)
        project.refuse(pulumi.lab.root)
        if "name: " in old:
            pulumi.quietly("stack", "init", "--no-select", "--stack", "lab")
        assert "ems:index" in pulumi.quietly("preview", "--stack", "lab")
        file.write_text(text)


def test_with_what_check_refuses_pulumi_does_not_run_ems(pulumi: Pulumi) -> None:
    """So that no rule of ours outlives the engine's. Newer engines take a file without a runtime, and run nothing."""
    file = pulumi.lab.root / "Pulumi.yaml"
    text = file.read_text()
    for old, new, _, key, _ in CHANGES:
        if key == "runtime.options":  # whose meaning differs between language hosts: that rule is ours
            continue
        changed(pulumi.lab, old, new)
        with pytest.raises(StackFileError):
            project.refuse(pulumi.lab.root)
        with suppress(CommandFailed):
            pulumi.quietly("config", "--stack", "lab")  # which reads the file, and runs nothing
            planned = pulumi.quietly("preview", "--stack", "lab", PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION="true")
            assert "ems:index" not in planned
        file.write_text(text)
