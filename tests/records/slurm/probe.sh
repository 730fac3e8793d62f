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
exec python -m probe
