#!/bin/bash -l
module load uv R/4.4
# Slurm sends USR1 before the time limit: then the agent stores what there is, and the job queues up once more.
late= told=
trap 'late=yes; kill -TERM "$agent" 2>/dev/null' USR1
# Whom it sends TERM, it takes away: maybe to start the same job again, so that is not noted as the end.
trap 'told=yes; kill -TERM "$agent" 2>/dev/null' TERM
python -m ems.clusters.slurm.head '/scratch/ems/runs/it'"'"'s 1' &
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
