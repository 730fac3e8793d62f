"""The sweep driver with real workers, run as the agent runs it: from the bundle's ems.zip."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ems.provenance import bundle
from ems.spool import folder as spool
from ems.spool.batch import Batch, Mark
from tests.processes import PATIENCE_S, having

CODE = (Path(__file__).parent / "driver_functions.py").read_text()


@dataclass
class Run:
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "job.log").read_text()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def batches(self) -> list[Batch]:
        return [spool.read(path) for path in sorted((self.folder / "spool").glob("*.batch"))]

    def points(self) -> list[int]:
        return [point for batch in self.batches() for point in batch.replaces]

    def marks(self) -> dict[int, Mark]:
        return {mark.point: mark for batch in self.batches() for mark in batch.marks}

    def rows(self) -> dict[tuple[int, int], dict[str, object]]:
        return {
            (batch.points[i], batch.rows[i]): {column.name: column.values[i] for column in batch.columns}
            for batch in self.batches()
            for i in range(len(batch))
        }

    def progress(self) -> dict[str, Any]:
        file = self.folder / "progress.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def everything(self) -> list[psutil.Process]:
        """All that it has started, as far as it has not ended."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[psutil.Process]:
        return having("ems.node.driver.worker", self.everything())


Start = Callable[..., Run]


@pytest.fixture(scope="session")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("node") / "ems.zip"
    file.write_bytes(bundle._node_code())
    return file


@pytest.fixture
def start(tmp_path: Path, zipped: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def started(
        function: str, grid: Mapping[str, object], done: bytes = b"", code: str = CODE, **options: object
    ) -> Run:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "jobs.py").write_text(code)
        (tmp_path / "done").write_bytes(done)
        files = {name: str(tmp_path / name) for name in ("code", "spool", "done")}
        order = {"function": f"jobs:{function}", "grids": [grid], **files, "workers": 2, "threads": 1}
        where = tmp_path / "order.json"
        where.write_text(json.dumps({**order, "progress": str(tmp_path / "progress.json"), **options}))
        call = f"from ems.node.driver.driver import main; main({str(where)!r})"
        script = f"import sys; sys.path[0] = {str(zipped)!r}; {call}"
        with (tmp_path / "job.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", script], cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        runs.append(Run(tmp_path, process))
        return runs[-1]

    yield started
    for run in runs:
        if run.process.poll() is None:
            processes = [*run.everything(), run.process]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            run.process.wait()


def numbers(count: int) -> dict[str, object]:
    return {"n": {"range": [0, count - 1, 1]}}


def eventually(condition: Callable[[], object], run: Run) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, f"it did not come true:\n{run.log}"
        assert run.process.poll() is None, f"the driver has ended:\n{run.log}"
        time.sleep(0.02)


def exactly_once(run: Run, total: int) -> bool:
    assert Counter(run.points()) == Counter(range(total))
    return True
