"""EMS, the Experiment Management System: each experiment is a Pulumi stack.

import ems
frame = ems.results("digits")  # the rows of the stack's newest experiment, as a pandas DataFrame
ems.outputs("digits")          # the files that its job left
ems.progress("digits")         # how far it is
ems.watch("digits")            # follows it live, in a notebook or a loop
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ems.base.version import __version__

if TYPE_CHECKING:
    from ems.notebook import outputs, progress, results, watch

__all__ = ["__version__", "outputs", "progress", "results", "watch"]


def __getattr__(name: str) -> Any:
    """What notebooks use, imported when it is used: the code on nodes has no pandas."""
    if name not in __all__:
        raise AttributeError(f"module 'ems' has no attribute {name!r}")
    from ems import notebook

    return getattr(notebook, name)
