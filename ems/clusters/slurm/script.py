"""The scripts of jobs, and the options with which they are submitted: text that follows from its arguments alone."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ems.clusters.slurm.wanted import Wanted

LEAVE_S = 60  # before its time limit, in which a worker finishes what it computes
FLUSH_S = 120  # before its time limit, in which a head stores what it has; of a short one, a part of it
GRACE_S = 30.0  # of that, until a program that was told to end is killed: as Slurm's own KillWait mostly is
HEAD = """\
{begin}
# Slurm sends USR1 before the time limit: then the agent stores what there is, and the job queues up once more.
late= told=
trap 'late=yes; kill -TERM "$agent" 2>/dev/null' USR1
# Whom it sends TERM, it takes away: maybe to start the same job again, so that is not noted as the end.
trap 'told=yes; kill -TERM "$agent" 2>/dev/null' TERM
{command} &
agent=$!
wait "$agent"; code=$?
while kill -0 "$agent" 2>/dev/null; do wait "$agent"; code=$?; done
if [ -n "$late" ] && [ "$code" -ne 0 ]; then
    # Not over. The controller may be away for a moment.
    for pause in 1 5 10 20; do
        scontrol requeue "$SLURM_JOB_ID" && exit 0
        sleep "$pause"
    done
fi
[ -n "$told" ] || {{ echo "$code" > {ended}.tmp && mv {ended}.tmp {ended}; }}
exit "$code"
"""
WORKERS = """\
{begin}
{boot} || exit
# Slurm sends USR1 before the time limit, and TERM when it takes the job away: the workers finish what they compute.
for number in $(seq 1 {processes}); do
    {gpus}
    left=$(( {seconds} - SECONDS ))
    env -i -C {folder} SLURM_JOB_ID="$SLURM_JOB_ID" {variables} {command} "$SLURM_JOB_ID-$number" $left &
    pids="$pids $!"
done
trap 'kill -USR1 $pids 2>/dev/null' USR1
trap 'kill -TERM $pids 2>/dev/null' TERM
for pid in $pids; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
done
"""
GPUS = 'own=$(echo "$CUDA_VISIBLE_DEVICES" | cut -d , -f $(( number * {gpus} - {gpus} + 1 ))-$(( number * {gpus} )))'


LOAD = """ -l
for module in {modules}; do
    module load "$module" || {{ echo "0 ERROR ems: module $module cannot be loaded on $(hostname)" >&2; exit 3; }}
done"""
PYTHON = """\
for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 ""; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && break
done
[ -n "$python" ] || {
    echo "0 ERROR ems: No Python 3.9 or newer is on $(hostname): name a module that has it in modules of the place" >&2
    exit 3
}"""


def head(command: str, run_dir: Path, wanted: Wanted) -> str:
    """The script of the job that leads a run: `command`, in words of the shell."""
    ended = shlex.quote(str(run_dir)) + '/head-"$SLURM_JOB_ID".ended'
    return HEAD.format(begin=_begin(wanted), command=command, ended=ended)


def head_options(name: str, run_dir: Path, wanted: Wanted) -> list[str]:
    """Of sbatch, for the job that leads a run: one of its name at a time."""
    return [
        *_named(name, run_dir / "agent.log"),
        "--dependency=singleton",
        "--requeue",
        f"--signal=B:USR1@{min(FLUSH_S, 15 * minutes(wanted.head_hours))}",
        "--ntasks=1",
        f"--cpus-per-task={wanted.head_cores}",
        f"--time={minutes(wanted.head_hours)}",
        *_partition(wanted.head_partition),
        *_memory(wanted, max(1, wanted.processes_of_head)),
        *_common(wanted, wanted.processes_of_head),
    ]


def workers(command: Sequence[str], variables: Mapping[str, str], folder: Path, wanted: Wanted, boot: str) -> str:
    """The script of a job of workers, each of which has these variables and no others.

    `boot`: in words of the shell, what has the node ready for them.
    """
    own = shlex.join(f"{name}={text}" for name, text in variables.items())
    return WORKERS.format(
        begin=_begin(wanted),
        processes=wanted.processes_per_job,
        gpus=GPUS.format(gpus=wanted.gpus) if wanted.gpus else "",
        folder=shlex.quote(str(folder)),
        variables=f'CUDA_VISIBLE_DEVICES="$own" {own}' if wanted.gpus else own,
        command=shlex.join(command),
        boot=boot,
        seconds=60 * minutes(wanted.hours) - LEAVE_S,
    )


def worker_options(name: str, count: int, log: Path, wanted: Wanted) -> list[str]:
    """Of sbatch, for so many jobs of workers."""
    return [
        *_named(name, log),
        f"--array=1-{count}",
        "--export=NIL",
        "--requeue",
        f"--signal=B:USR1@{LEAVE_S}",
        "--ntasks=1",
        f"--cpus-per-task={wanted.cores * wanted.processes_per_job}",
        f"--time={minutes(wanted.hours)}",
        *_partition(wanted.partition),
        *_memory(wanted, wanted.processes_per_job),
        *_common(wanted, wanted.processes_per_job),
    ]


def probe(command: str, wanted: Wanted) -> str:
    """The script of a job that looks at one node."""
    return f"{_begin(wanted)}\nexec {command}\n"


def probe_options(name: str, log: Path, wanted: Wanted) -> list[str]:
    """Of sbatch, for a job that looks at one node: small and short, so that it starts soon."""
    return [*_named(name, log), "--ntasks=1", "--time=2", *_partition(wanted.partition), *_common(wanted, 0)]


def _begin(wanted: Wanted) -> str:
    """Of a script; `module` is there in login shells."""
    load = LOAD.format(modules=shlex.join(wanted.modules)) if wanted.modules else ""
    return f"#!/bin/bash{load}\n{PYTHON}"


def _named(name: str, log: Path) -> Iterator[str]:
    yield f"--job-name={name}"
    yield f"--output={log}"
    yield "--open-mode=append"
    yield f"--chdir={log.parent}"


def minutes(hours: float) -> int:
    """Slurm's time limits are whole minutes, two at least, as it looks at them about once a minute."""
    return max(2, math.ceil(60 * hours))


def _partition(names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"--partition={','.join(names)}"


def _memory(wanted: Wanted, processes: int) -> Iterator[str]:
    if wanted.memory_gb:
        yield f"--mem={math.ceil(wanted.memory_gb * processes * 1e9 / 2**20)}M"


def _common(wanted: Wanted, processes: int) -> Iterator[str]:
    """`processes`: that compute; without one, nothing is asked of the node."""
    for key, value in (("account", wanted.account), ("qos", wanted.qos)):
        if value:
            yield f"--{key}={value}"
    if processes and wanted.constraint:
        yield f"--constraint={wanted.constraint}"
    if processes and wanted.gpus:
        yield f"--gpus={wanted.gpus * processes}"
    yield from wanted.sbatch
