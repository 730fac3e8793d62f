"""A notebook's kernel that reads rows and progress while a run stores into a real PostgreSQL, DynamoDB or BigQuery."""

from __future__ import annotations

from contextlib import closing

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from ems import databases, lab
from ems.databases import Claim, Outcome, State
from ems.lab import Lab
from tests.conftest import ran
from tests.databases.cases import batch, floats
from tests.processes import PATIENCE_S

LOOK = """
import ems
frame, progress = ems.results("pi"), ems.progress("pi")
print(frame.x.tolist(), ems.results("pi", where=["x > 2"]).x.tolist(), progress.state, progress.rows)
"""
END = """
for progress in ems.watch("pi"):
    print(len(ems.results("pi")), progress.state)
"""


@pytest.fixture(params=["postgresql_url", "dynamodb_url", "bigquery_url"])
def there(request: pytest.FixtureRequest, here: Lab) -> Lab:
    file = here.root / "Pulumi.yaml"
    file.write_text(file.read_text().replace(here.database_url, request.getfixturevalue(request.param)))
    return lab.find()


class Kernel(NotebookClient):
    def __init__(self, there: Lab) -> None:
        where = {"metadata": {"path": str(there.root)}}
        super().__init__(new_notebook(), timeout=PATIENCE_S, kernel_name="python3", resources=where)

    def run(self, code: str) -> list[str]:
        """What a new cell with this code prints."""
        self.nb.cells.append(new_code_cell(code))
        ran = self.execute_cell(self.nb.cells[-1], len(self.nb.cells) - 1)
        return "".join(each.text for each in ran.outputs if each.output_type == "stream").splitlines()


def test_each_look_has_what_is_stored_by_then(there: Lab) -> None:
    running = ran(there, batch([0], floats("x", 1.5)), state=None)
    claim = Claim(running.id, running.attempt, running.registration.results_table, None)
    kernel = Kernel(there)
    with closing(databases.connect(there.database_url, there.root)) as agent, kernel.setup_kernel():
        assert kernel.run(LOOK) == ["[1.5] [] running 1"]
        agent.store(claim, batch([0, 0], floats("x", 2.5, 3.5), rows=[1, 2]))
        assert kernel.run(LOOK) == ["[1.5, 2.5, 3.5] [2.5, 3.5] running 3"]
        agent.release(claim, Outcome(State.SUCCEEDED, points_done=1, points_failed=0))
        assert kernel.run(END)[-1] == "3 succeeded"
