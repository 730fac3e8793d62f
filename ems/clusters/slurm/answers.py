"""What a Slurm machine is asked, answered where its commands are: in this process, or by SSH in one of its own there.

There a question comes as JSON on standard input, and its answer is JSON. Standard library alone, Python 3.11 or newer:
it runs from a zip of EMS's code, before anything is installed. Folders are those of that machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ems.base.aside import write
from ems.base.errors import EmsError, UserError, refused
from ems.base.locks import share
from ems.base.private import make_folder
from ems.base.process import CommandFailed
from ems.clusters import shipping
from ems.clusters.slurm import environments, heads, late, queue, script
from ems.clusters.slurm import survey as surveys
from ems.clusters.slurm.heads import Head, Seen
from ems.clusters.slurm.queue import Queue, QueuedJob
from ems.clusters.slurm.wanted import FILE, Wanted
from ems.node import run_folder

HEAD = "ems.clusters.slurm.head"
Found = dict[str, Any]


def survey(jobs: Queue, wanted: Mapping[str, Any], work_dir: str) -> Found:  # noqa: ARG001
    """As `survey.survey`; `wanted`: JSON of `Wanted`, here and below."""
    return surveys.survey(Wanted.of(wanted), Path(work_dir))


def probe(jobs: Queue, wanted: Mapping[str, Any], folder: str, command: str) -> Found:  # noqa: ARG001
    """As `survey.probe`."""
    return dict(surveys.probe(Wanted.of(wanted), Path(folder), command))


def refuse(jobs: Queue, wanted: Mapping[str, Any], joined: bool) -> Found:  # noqa: ARG001
    """As `survey.refuse`."""
    surveys.refuse(Wanted.of(wanted), joined=joined)
    return {}


def ready(jobs: Queue, run_dir: str, archives: str) -> Found:  # noqa: ARG001
    """Have the folder of a run, in which several machines work, and that for archives of environments."""
    make_folder(Path(run_dir))
    share(Path(run_dir))
    environments.make_folder(Path(archives))
    return {}


def look(jobs: Queue, runs: Sequence[Mapping[str, Any]], asks: bool) -> Found:
    """How each of these `runs` does: of each `run_dir`, `experiment_id`, `seen` (Seen) and `key`, as it was told.

    `asks`: whether Slurm may be asked, once for all of them; else what it said last is told.
    Found of each: `number` of its newest submission, 0 without one, and when that was made (`submitted_at`), what the
    looks have `seen`, `progress` (points a second, workers), how `workers` wait; and, as far as it is known, its `job`,
    that Slurm is `unanswered`, or that the job is `gone` for sure, with what is needed to replace it.
    """
    return {"runs": [_look(jobs, asks=asks, **run) for run in runs]}


def _look(jobs: Queue, run_dir: str, experiment_id: str, seen: Mapping[str, Any], key: str, *, asks: bool) -> Found:
    folder = Path(run_dir)
    head = Head(folder, experiment_id, jobs, Seen(**seen))
    found = _asked(jobs, head, folder, key) if asks else _known(jobs, head)
    last = head.last()
    return {
        **found,
        "number": last.number if last else 0,
        "submitted_at": last.at if last else None,
        "seen": asdict(head.seen),
        "progress": run_folder.progress(folder),
        "workers": heads.workers(folder),
    }


def _asked(jobs: Queue, head: Head, folder: Path, key: str) -> Found:
    try:
        job = head.job()
    except CommandFailed as error:
        if error.code == heads.NOT_FOUND:
            raise heads.refused(error) from error
        return {"unanswered": error.stderr.strip() or error.message}
    if job:
        return {"job": asdict(job), **_why(jobs, head, job, key)}
    return _gone(head, folder) if head.is_gone() else {}


def _why(jobs: Queue, head: Head, job: QueuedJob, key: str) -> Found:
    """What makes a job wait, if that is not told yet: it takes more questions to Slurm."""
    now = f"{job.id} {job.restarts} {job.state} {job.reason} {head.is_early}"
    if now == key:
        return {"key": now}
    place = jobs.place(job) if job.state == "PENDING" and not head.is_early else None
    begins = queue.maintenance(datetime.now(UTC)) if job.is_held_for_maintenance else None
    return {"key": now, "place": place, "maintenance_at": begins.isoformat() if begins else None}


def _gone(head: Head, folder: Path) -> Found:
    return {
        "gone": True,
        "goes_on": head.was_to_go_on(),
        "failed": environments.failure(folder),
        "described": environments.is_described(folder),
        "said": run_folder.last_words(folder),
    }


def _known(jobs: Queue, head: Head) -> Found:
    mine = (job for job in jobs.known() if job.name == head.name)
    return {"job": asdict(job)} if (job := next(mine, None)) else {}


def submit(jobs: Queue, run_dir: str, experiment_id: str, wanted: Mapping[str, Any], after: int) -> Found:
    """Submit the head of a prepared run, after its submission number `after`; it may be asked twice.

    `waits`: why that has to wait, "" if it has not. UserError if Slurm refuses it.
    """
    folder, needed = Path(run_dir), Wanted.of(wanted)
    head = Head(folder, experiment_id, jobs)
    environments.forget_failure(folder)
    write(folder / FILE, json.dumps(asdict(needed)))
    file = folder / "head.sh"
    write(file, script.head(shipping.boot(folder, "head", HEAD), folder, needed))
    return {"waits": head.submit(file, script.head_options(head.name, folder, needed), after)}


def cancel(jobs: Queue, run_dir: str, experiment_id: str) -> Found:
    """The run is over, or is to be: cancel its jobs, if it ever had one."""
    if Head(Path(run_dir), experiment_id, jobs).last():
        with suppress(CommandFailed):  # it ends by itself, once it reads its row
            queue.cancel([heads.job_name(experiment_id), heads.crew_name(experiment_id)])
    return {}


def release(jobs: Queue, run_dir: str, experiment_id: str) -> Found:
    """As `run_folder.release`, after `cancel`; what may hold a password of a package index goes too."""
    cancel(jobs, run_dir, experiment_id)
    environments.forget(Path(run_dir))
    run_folder.release(Path(run_dir))
    return {}


def costs(jobs: Queue, runs: str) -> Found:  # noqa: ARG001
    """What runs cost that ended while accounting was away, as far as that knows now; `runs`: the folder of theirs."""
    found = late.known(Path(runs))
    return {"known": [[str(file), file.parent.name, due.attempt, usd] for file, due, usd in found]}


def charged(jobs: Queue, file: str) -> Found:  # noqa: ARG001
    """As `late.settle`."""
    late.settle(Path(file))
    return {}


ASKED: Mapping[str, Callable[..., Found]] = {
    function.__name__: function
    for function in (survey, probe, refuse, ready, look, submit, cancel, release, costs, charged)
}


def main() -> None:
    """Answer one question: `ask`, and what it takes. `refused`: why it cannot be; `of_user`: as of a UserError."""
    question = json.load(sys.stdin)
    try:
        answer = ASKED[question.pop("ask")](Queue(), **question)
    except (EmsError, OSError) as error:
        said = refused(error) if isinstance(error, OSError) else error
        answer = {"refused": said.message, "hint": said.hint, "of_user": isinstance(said, UserError)}
    print(json.dumps(answer))  # noqa: T201
