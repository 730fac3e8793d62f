#!/bin/bash -l
for module in uv R/4.4; do
    module load "$module" || { echo "0 ERROR ems: module $module cannot be loaded on $(hostname)" >&2; exit 3; }
done
for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 ""; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null && break
done
[ -n "$python" ] || {
    echo "0 ERROR ems: No Python 3.9 or newer is on $(hostname): name a module that has it in modules of the place" >&2
    exit 3
}
# Slurm sends USR1 before the time limit: then the agent stores what there is, and the job queues up once more.
late= told=
trap 'late=yes; kill -TERM "$agent" 2>/dev/null' USR1
# Whom it sends TERM, it takes away: maybe to start the same job again, so that is not noted as the end.
trap 'told=yes; kill -TERM "$agent" 2>/dev/null' TERM
"$python" -I -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from ems.node.environments.ready import main; main()' '/scratch/ems/runs/it'"'"'s 1/ems.zip' '/scratch/ems/runs/it'"'"'s 1' head ems.clusters.slurm.head &
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
[ -n "$told" ] || { echo "$code" > '/scratch/ems/runs/it'"'"'s 1'/head-"$SLURM_JOB_ID".ended.tmp && mv '/scratch/ems/runs/it'"'"'s 1'/head-"$SLURM_JOB_ID".ended.tmp '/scratch/ems/runs/it'"'"'s 1'/head-"$SLURM_JOB_ID".ended; }
exit "$code"
