"""How an `ems up` has left a stack, in one line."""

from __future__ import annotations

from ems.base.console import Text
from ems.databases import Experiment, State
from ems.lab.line import progress_line
from ems.views.status import COLOURS


def end(stack: str, experiment: Experiment | None, *, ran: bool) -> Text:
    """Such as `✓ pi succeeded · 20 rows · 1 s`; of what is not an experiment, without an `experiment`, `✓ lab`."""
    if experiment is None:
        return Text(f"✓ {stack}", "green")
    if experiment.state is State.SUCCEEDED and not ran:
        return Text(f"✓ {stack} already computed ({experiment.rows_stored:,} rows)", "green")
    mark = {True: "✓", False: "✗"}[experiment.state is State.SUCCEEDED] if experiment.state.finished else "▸"
    return Text(f"{mark} {stack} {progress_line(experiment)}", COLOURS.get(experiment.state, ""))
