#!/bin/bash -l
module load uv R/4.4
# Slurm sends USR1 before the time limit, and TERM when it takes the job away: the workers finish what they compute.
for number in $(seq 1 3); do
    own=$(echo "$CUDA_VISIBLE_DEVICES" | cut -d , -f $(( number * 1 - 1 + 1 ))-$(( number * 1 )))
    env -i -C '/scratch/ems/runs/it'"'"'s 1/code' SLURM_JOB_ID="$SLURM_JOB_ID" CUDA_VISIBLE_DEVICES="$own" 'A=it'"'"'s' /env/bin/python -c 'main()' "$SLURM_JOB_ID-$number" 7200 &
    pids="$pids $!"
done
trap 'kill -USR1 $pids 2>/dev/null' USR1
trap 'kill -TERM $pids 2>/dev/null' TERM
for pid in $pids; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
done
