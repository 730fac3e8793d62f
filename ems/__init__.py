"""EMS, the Experiment Management System: each experiment is a Pulumi stack.

import ems
frame = ems.results("digits")  # the rows of the stack's newest experiment, as a pandas DataFrame
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"

os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # else importing GitPython fails on a machine without git


def results(stack: str) -> pd.DataFrame:
    """The rows stored so far for the newest experiment of `stack`, in (point, row) order.

    The lab is the one that the working directory lies in. UserError outside a lab; DatabaseError without experiment.
    """
    from contextlib import closing

    from ems import databases, lab
    from ems.errors import DatabaseError
    from ems.views.results import to_frame

    here = lab.find()
    with closing(databases.connect(here.database_url, here.root)) as database:
        experiments = database.experiments(stack)
        if not experiments:
            raise DatabaseError(f"Stack {stack!r} has no experiment yet.", f"Run it: ems up {stack}")
        return to_frame(database.results(experiments[0].id))
