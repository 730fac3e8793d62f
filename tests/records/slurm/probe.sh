#!/bin/bash -l
module load uv R/4.4
exec python -m probe
