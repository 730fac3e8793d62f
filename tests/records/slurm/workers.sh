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
"$python" -I -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from ems.node.environments.ready import main; main()' '/scratch/ems/runs/it'"'"'s 1/ems.zip' '/scratch/ems/runs/it'"'"'s 1' /env || exit
# Slurm sends USR1 before the time limit, and TERM when it takes the job away: the workers finish what they compute.
for number in $(seq 1 3); do
    own=$(echo "$CUDA_VISIBLE_DEVICES" | cut -d , -f $(( number * 1 - 1 + 1 ))-$(( number * 1 )))
    left=$(( 7200 - SECONDS ))
    env -i -C '/scratch/ems/runs/it'"'"'s 1/code' SLURM_JOB_ID="$SLURM_JOB_ID" CUDA_VISIBLE_DEVICES="$own" 'A=it'"'"'s' PATH=/env/bin:/bin /env/bin/python -c 'main()' "$SLURM_JOB_ID-$number" $left &
    pids="$pids $!"
done
trap 'kill -USR1 $pids 2>/dev/null' USR1
trap 'kill -TERM $pids 2>/dev/null' TERM
for pid in $pids; do
    while kill -0 "$pid" 2>/dev/null; do wait "$pid"; done
done
