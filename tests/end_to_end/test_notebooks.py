"""`notebooks/svd.ipynb` in a real kernel, while its sweep runs."""

from __future__ import annotations

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from tests.end_to_end.conftest import User
from tests.processes import PATIENCE_S

ROOT = Path(__file__).parents[2]
POINTS = 40
# The sample's function, but the greater matrices are not computed while `.ems/wait` is there.
HELD = """
import os, pathlib, time
from experiments.svd import spiked
wait = pathlib.Path(os.environ["EMS_RESULTS_DIR"]).parents[2] / "wait"

def leading(m, n, theta, seed):
    time.sleep(0.05)
    while m > 60 and wait.exists():
        time.sleep(0.05)
    return spiked.leading(m, n, theta, seed)
"""
# Tells how many matrices each figure shows that the notebook shows.
TOLD = """
import matplotlib.pyplot as plt
show = plt.show
def told():
    print("figure of", plt.gcf().get_suptitle())
    show()
plt.show = told
"""


class Recorder(NotebookClient):
    """Keeps what the kernel showed at any time, also what was replaced later."""

    def __init__(self, notebook: NotebookNode, folder: Path) -> None:
        super().__init__(
            notebook, timeout=PATIENCE_S, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        self.seen.append((msg["msg_type"], msg["content"]))
        return super().process_message(msg, cell, cell_index)

    def shares(self) -> list[float]:
        """How far each progress bar was."""
        shown = (content["data"].get("text/html", "") for _, content in self.seen if "data" in content)
        return [float(share) for page in shown for share in re.findall(r'<progress value="([0-9.]+)"', page)]

    def figures(self) -> list[int]:
        """Of how many matrices each figure was."""
        printed = "".join(content.get("text", "") for type, content in self.seen if type == "stream")
        return [int(count) for count in re.findall(r"figure of (\d+) matrices", printed)]


@pytest.fixture
def held(user: User) -> Path:
    """A smaller `svd` whose second half waits until a file has gone: returns that file."""
    for folder in ("environments/svd", "experiments/svd", "notebooks"):
        shutil.copytree(ROOT / folder, user.root / folder, dirs_exist_ok=True)
    described = yaml.safe_load((ROOT / "stacks/Pulumi.svd.yaml").read_text())["config"]["ems:experiment"]
    described |= {"project": "first", "experimenter": "me", "cluster": {"kind": "laptop", "workers": 2}}
    described["job"]["function"] = "experiments.svd.held:leading"
    described["job"]["sweep"] = {"m": [60, 80], "n": [120], "theta": [0.2, 2], "seed": {"count": POINTS // 4}}
    user.write("stacks/Pulumi.svd.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))
    user.write("experiments/svd/held.py", HELD)
    user.commit("The sample, smaller")
    wait = user.root / ".ems/wait"
    wait.touch()
    return wait


def stored(user: User) -> int:
    ((count,),) = user.query("SELECT coalesce(max(rows_stored), 0) FROM experiment")
    return int(count)


def test_progress_and_figure_follow_the_run_to_its_end(user: User, held: Path) -> None:
    notebook = nbformat.read(ROOT / "notebooks/svd.ipynb", as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    notebook.cells.insert(0, new_code_cell(TOLD))
    loop = Recorder(notebook, user.root / "notebooks")
    bare = Recorder(new_notebook(cells=[new_code_cell("import ems\nems.watch('svd')")]), user.root)
    command = user.start("up", "svd")
    user.wait(lambda: stored(user) >= 3)
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(client.execute) for client in (loop, bare)]
        try:
            user.wait(lambda: loop.figures() and len(bare.shares()) >= 2)
        finally:
            held.unlink()
        for ended in running:
            ended.result()
    assert command.wait(PATIENCE_S) == 0, user.said(command)
    for client in (loop, bare):
        assert client.shares()[0] < 1 and client.shares()[-1] == 1 and client.shares() == sorted(client.shares())
    assert 3 <= loop.figures()[0] <= POINTS // 2 and loop.figures()[-1] == POINTS
    assert [type for type, _ in bare.seen].count("display_data") == 1  # which is then updated in place
    drawn, *table = [cell for cell in notebook.cells if cell.cell_type == "code"][-2:]
    kinds = [kind for output in drawn.outputs for kind in output.get("data", {})]
    assert kinds == ["text/plain", "image/png", "text/plain", "text/html"]  # of the last turn alone
    assert "overlap_u_theory" in table[0].outputs[0]["data"]["text/html"]
