"""The scripts and options of a Slurm machine's jobs, and what is read of Slurm's words: without a Slurm."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ems.base.errors import StackFileError
from ems.clusters import settings, shipping
from ems.clusters.slurm import queue, script, waiting
from ems.clusters.slurm.queue import QueuedJob
from ems.clusters.slurm.survey import Partition, hours
from ems.clusters.slurm.wanted import wanted
from ems.stack import spec

RECORDS = Path(__file__).parents[1] / "records/slurm"
SHERLOCK = wanted(
    {"workers": 100, "head": {"cores": 2}},
    {
        "partition": ["donoho", "owners"], "head": {"partition": ["service"], "hours": 24, "computes": False},
        "hours": 2.01, "memory_gb": 4, "cores": 2, "processes_per_job": 3, "gpus": 1, "constraint": "CPU_GEN:RME",
        "modules": ["uv", "R/4.4"], "sbatch": ["--exclude=sh01"], "workers": 500,
    },
    account="pi",
)  # fmt: skip
RUN = Path("/scratch/ems/runs/it's 1")


def recorded(name: str, text: str) -> None:
    """Compare with what the record says; EMS_RECORD=1 writes it anew."""
    file = RECORDS / name
    if os.environ.get("EMS_RECORD"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text


def test_the_scripts_are_as_recorded_and_bash_reads_them():
    scripts = {
        "head.sh": script.head(shipping.boot(RUN, "head", "ems.clusters.slurm.head"), RUN, SHERLOCK),
        "workers.sh": script.workers(
            ["/env/bin/python", "-c", "main()"],
            {"A": "it's", "PATH": "/env/bin:/bin"},
            RUN / "code",
            SHERLOCK,
            shipping.boot(RUN, "/env"),
        ),
        "probe.sh": script.probe("python -m probe", SHERLOCK),
    }
    for name, text in scripts.items():
        recorded(name, text)
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_options_are_as_recorded():
    recorded("head.options", "\n".join(script.head_options("ems-1", RUN, SHERLOCK)) + "\n")
    options = script.worker_options("ems-1-workers", 33, RUN / "workers.log", SHERLOCK)
    recorded("workers.options", "\n".join(options) + "\n")


def test_what_an_experiment_says_counts_before_the_place_and_the_place_before_the_defaults():
    assert (SHERLOCK.workers, SHERLOCK.head_cores, SHERLOCK.head_hours) == (100, 2, 24)
    assert (SHERLOCK.account, SHERLOCK.head_partition, SHERLOCK.head_computes) == ("pi", ("service",), False)
    plain = wanted({}, {})
    assert (plain.workers, plain.cores, plain.hours, plain.head_hours, plain.partition) == (4, 1, 2.0, 2.0, ())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("UNLIMITED", None), ("30", 0.5), ("2-00:00:00", 48), ("7-00", 168), ("02:30:00", 2.5),
        ("1-12:30", 36.5), ("10:30", 0.175),
    ],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_writes_them(said, expected):
    assert hours(said) == expected


def test_a_partition_is_read_from_its_line():
    line = "PartitionName=owners AllowGroups=ALL MaxTime=2-00:00:00 PreemptMode=REQUEUE State=UP TotalCPUs=66516"
    assert Partition.of(line) == Partition("owners", 48, 66516, "UP", "requeue")


@pytest.mark.parametrize(
    ("state", "reason", "start", "said"),
    [
        (
            "PENDING",
            "Priority",
            "2026-01-01T10:00:00",
            "3 of 40 in line, expected to start at 2026-01-01",
        ),
        ("PENDING", "Resources", "N/A", "queued (Resources), 3 of 40 in line"),
        ("PENDING", "ReqNodeNotAvail, Reserved for maintenance", "N/A", "held for maintenance"),
        ("PENDING", "JobHeldAdmin", "N/A", "scontrol release 7"),
        ("RUNNING", "None", "", "is running on n1"),
    ],
)
def test_what_a_job_waits_for_is_told(state, reason, start, said):
    job = QueuedJob("7", state, reason, start, "n1" if state == "RUNNING" else "", 0, "ems-1")
    assert said in waiting.told(job, (3, 40))


def test_it_is_told_for_how_long_a_job_has_been_queued():
    job = QueuedJob("7", "PENDING", "Priority", "N/A", "", 0, "ems-1")
    assert waiting.told(job, waited=timedelta(seconds=59)) == "Slurm's job 7 is queued (Priority)"
    assert waiting.told(job, waited=timedelta(minutes=125)) == "Slurm's job 7 is queued for 2 h 05 min (Priority)"


@pytest.mark.parametrize(
    ("minutes", "said"),
    [
        (601, "ask for 10 h or less (`hours`, of the head `head.hours`); of this job: "
              "scontrol update jobid=7 timelimit=600"),
        (95, "ask for 1.5 h or less (`hours`, of the head `head.hours`); of this job: "
             "scontrol update jobid=7 timelimit=90"),
        (3, "(Reservation), expected to start at 2026-01-01T10:00:00"),
        (None, "(Reservation), expected to start at 2026-01-01T10:00:00"),
    ],
)  # fmt: skip
def test_what_is_held_for_maintenance_hears_what_would_fit(minutes, said):
    job = QueuedJob("7", "PENDING", "Reservation", "2026-01-01T10:00:00", "", 0, "ems-1")
    begins = None if minutes is None else datetime.now(UTC) + timedelta(minutes=minutes, seconds=30)
    assert waiting.told(job, None, begins).endswith(said)


def test_variables_of_a_job_that_surrounds_it_are_not_handed_on(monkeypatch):
    for name in ("SLURM_JOB_ID", "SBATCH_PARTITION", "PMIX_RANK", "SLURM_CONF", "SLURMY"):
        monkeypatch.setenv(name, "x")
    kept = queue.variables()
    assert {"SLURM_JOB_ID", "SBATCH_PARTITION", "PMIX_RANK"}.isdisjoint(kept) and {
        "SLURM_CONF",
        "SLURMY",
    } <= kept.keys()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sbatch", ["--array=1-9"], "but for those that EMS sets"),
        ("sbatch", ["exclusive"], "an option as --exclusive"),
        ("partition", ["a b"], "a word without spaces"),
        ("hours", 0, "above 0"),
        ("head", {"core": 1}, "did you mean cores?"),
        ("partitions", ["normal"], "did you mean partition?"),
    ],
)
def test_a_wrong_setting_is_one_clear_fault(key, value, said):
    with pytest.raises(StackFileError) as caught:
        spec.parse("cluster", {"kind": "slurm", key: value}, settings())
    (fault,) = caught.value.faults
    assert said in fault.problem and fault.key.startswith(f"ems:cluster.{key}")
