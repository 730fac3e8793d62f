"""What the jobs of a run cost while accounting is away, by what Slurm notes at their ends."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ems.clusters.slurm import queue
from ems.clusters.slurm.crew import SlurmCrew, crew_name
from ems.clusters.slurm.wanted import wanted
from tests.clusters.slurm_server import SlurmServer, faked, slurm
from tests.processes import eventually

__all__ = ["slurm"]
pytestmark = pytest.mark.xdist_group("slurm")
AWAY = 'case " $* " in *" -c "*) exec REAL "$@";; esac; echo "Unable to contact slurmdbd" >&2; exit 1'


def test_it_is_known_by_what_slurm_notes_at_their_ends(slurm: SlurmServer, tmp_path: Path, monkeypatch):
    for name, value in slurm.variables.items():
        monkeypatch.setenv(name, value)
    faked(tmp_path, monkeypatch, "sacct", AWAY)
    began, crew = datetime.now(UTC), crew_name("abc")
    for _ in range(2):
        slurm.run("sbatch", "-A", "grant", "-J", crew, "-t", "9", "--wrap", "sleep 3")
    slurm.run("sbatch", "-A", "grant", "-J", crew_name("other"), "-t", "9", "--wrap", "sleep 8")
    eventually(lambda: slurm.run("squeue", "-h") == "")
    hours = queue.completed_hours(crew, began)
    assert 6 <= 3600 * hours <= 10
    settings = wanted({"usd_per_core_hour": 3600.0, "processes_per_job": 2})
    head_s = (datetime.now(UTC) - began).total_seconds()
    cost = SlurmCrew(tmp_path, "abc", settings, tmp_path).cost(1, began)
    assert cost.basis == "completion"
    assert cost.usd == pytest.approx(2 * 3600 * hours + head_s, abs=2)
