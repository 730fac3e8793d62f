"""An instance of a run, from its start to its end: what it leads or takes part in, and what all of them do meanwhile.

    python3 -I -c "import sys; sys.path.insert(0, ZIP); from ems.node.aws.boot import main; main()" CONFIG.json

The file is what the start-up script says (NodeConfig). Once `main` is over, that script switches the instance off.
Standard library alone, Python 3.11 or newer.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError, ProvenanceError
from ems.node.aws.signed import Aws, metadata
from ems.node.environments import archive
from ems.node.environments.python import Python, find
from ems.node.environments.ready import BOOT, CODE, ORDER
from ems.node.environments.recipe import Order, Recipe
from ems.node.environments.scratch import key_of

HEAD, WORKERS = "head", "workers"  # the roles of machines, and of their groups
MANIFEST, MEETING, ENDED = "manifest.json", "meeting.json", "ended.txt"
UV = "bin/uv"  # a file of the manifest that is fetched where an environment has to be built
NOTICE = "meta-data/spot/instance-action"
MOST_STARTS = 3  # of what an instance is there for
LOOK_S = 5.0  # between two looks for a notice, two copies of the logs
LOG_BYTES = 4_000_000  # of a log's end, which is copied


@dataclass(frozen=True)
class NodeConfig:
    """What an instance is told. `run`, `archives`: prefixes in the bucket; `groups`: all of the run, the head's first;
    `workers`: how many instances join the head."""

    role: str
    region: str
    bucket: str
    run: str
    archives: str
    folder: str
    groups: tuple[str, ...]
    workers: int

    @staticmethod
    def read(file: Path) -> NodeConfig:
        """As the start-up script has written it."""
        said = json.loads(file.read_text(encoding="utf-8"))
        return NodeConfig(**{**said, "groups": tuple(said["groups"])})


def main() -> None:
    """Ends as the run does."""
    from ems.node.aws.leader import Leader
    from ems.node.aws.worker import Worker

    config = NodeConfig.read(Path(sys.argv[1]))
    (Leader if config.role == HEAD else Worker)(config).work()


class Instance(ABC):
    """What it prints is on its console."""

    def __init__(self, config: NodeConfig) -> None:
        self._config, self._aws = config, Aws(config.region, config.bucket)
        self._root, self._run_dir = Path(config.folder), Path(config.folder, "run")
        self._leaves = False  # it is taken away, or switched off
        self._process: subprocess.Popen[bytes] | None = None
        self._listed: dict[str, dict[str, str]] = {}  # the files of the manifest, by path
        self._copied: dict[str, object] = {}  # what was copied of each file

    def work(self) -> None:
        """An instance that is taken away leaves what it was at to others."""
        signal.signal(signal.SIGTERM, lambda *_: self._leave())
        try:
            why = self._carried_out()
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
        with suppress(OSError, EmsError):
            self._copy()
        if not self._leaves:
            say(f"closing: {why or 'the run is over'}")
            self._end(why)

    @abstractmethod
    def _carried_out(self) -> str:
        """Do what the instance is there for; else why that cannot be done here."""

    @abstractmethod
    def _end(self, why: str) -> None:
        """Have no other instance asked for in place of this one; `why` as of `_carried_out`."""

    def _ended(self, module: str, log: str) -> int:
        """The exit code of a module of EMS, in its own environment; what it prints is in the log."""
        command = [sys.executable, "-I", "-c", BOOT, str(self._run_dir / CODE), str(self._run_dir), "head", module]
        nothing = subprocess.DEVNULL
        with (self._run_dir / log).open("ab") as file:
            self._process = subprocess.Popen(command, cwd=self._run_dir, stdin=nothing, stdout=file, stderr=file)
        if self._leaves:
            self._process.terminate()
        return self._process.wait()

    def _leave(self) -> None:
        """What is finished is handed over; the rest is for others."""
        self._leaves = True
        if self._process:
            self._process.terminate()

    @abstractmethod
    def _copy(self) -> None:
        """Put into the bucket what others look for."""

    def _fetch(self) -> None:
        """What the run's manifest lists: key, SHA-256 and path of each file; paths are from the folder."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        manifest = self._root / MANIFEST
        self._aws.get(f"{self._config.run}{MANIFEST}", manifest)
        self._listed = {each["path"]: each for each in json.loads(manifest.read_text(encoding="utf-8"))}
        for path in self._listed.keys() - {UV}:
            self._fetch_file(path)

    def _fetch_file(self, path: str) -> None:
        file, said = self._root / path, self._listed[path]
        file.parent.mkdir(parents=True, exist_ok=True)
        self._aws.get(said["key"], file, said["sha256"])

    def _fetch_uv(self) -> None:
        if UV in self._listed and not (self._root / UV).exists():
            self._fetch_file(UV)
            (self._root / UV).chmod(0o755)

    def _lacking(self) -> bool:
        """Whether there is an environment that no instance like this has built before; the others are fetched."""
        order = Order.read(self._run_dir / ORDER)
        keys = [key_of(recipe, self._python(recipe, order)) for recipe in (order.agents, order.experiment)]
        there = [self._has_archive(Path(order.archives, key)) for key in keys]
        return not all(there)

    def _python(self, recipe: Recipe, order: Order) -> Python:
        try:
            return find(recipe, order)
        except ProvenanceError:  # the image has none, so uv is to bring it
            self._fetch_uv()
            return find(recipe, order)

    def _has_archive(self, folder: Path) -> bool:
        if (folder / archive.SUM).exists():
            return True
        try:
            for name in (archive.SUM, archive.FILE):
                self._aws.get(f"{self._config.archives}{folder.name}/{name}", self._root / name)
        except FileNotFoundError:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        for name in (archive.FILE, archive.SUM):
            (self._root / name).replace(folder / name)
        self._copied[str(folder)] = True
        return True

    # Meanwhile

    @contextmanager
    def _meanwhile(self) -> Iterator[None]:
        """Copies, and heeds a notice."""
        with self._repeating(self._copy), self._repeating(self._heed):
            yield

    @contextmanager
    def _repeating(self, look: Callable[[], None]) -> Iterator[None]:
        """Every LOOK_S, in a thread of its own."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(LOOK_S):
                with suppress(OSError, ValueError, EmsError):
                    look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _heed(self) -> None:
        """A notice that the instance is taken away."""
        if not self._leaves and metadata(NOTICE):
            say("this instance is taken away")
            self._leave()

    def _copy_log(self, log: Path, name: str) -> None:
        size = log.stat().st_size if log.exists() else 0
        if size == self._copied.get(name, 0):
            return
        copy = self._root / f"{log.name}.copy"
        with log.open("rb") as file:
            file.seek(max(0, size - LOG_BYTES))
            aside.write(copy, file.read(LOG_BYTES))
        self._aws.put(f"{self._config.run}{name}", copy)
        self._copied[name] = size


def say(step: str) -> None:
    """On the console."""
    print(f"ems: {step}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
