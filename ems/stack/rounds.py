"""What concerns rounds of points in a stack file, beyond single keys. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ems.base.errors import Fault
from ems.stack.models import CommandJob, ExperimentSpec, Spec
from ems.sweep import Sweep


def faults(spec: Spec) -> Iterator[Fault]:
    """A first round with more points than there may be in all."""
    if not isinstance(spec, ExperimentSpec) or isinstance(spec.job, CommandJob) or spec.limits.max_points is None:
        return
    if (first := len(Sweep.of(spec.job.sweep))) > spec.limits.max_points:
        problem = f"is {spec.limits.max_points:,}, but the first round has {first:,} points: allowed is that or more"
        yield Fault("ems:experiment.limits.max_points", problem)
