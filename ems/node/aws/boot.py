"""The head of a run, from its instance's start to its end: it fetches the run, has an agent carry it out, and closes.

    python3 -I -c "import sys; sys.path.insert(0, ZIP); from ems.node.aws.boot import main; main()" CONFIG.json

The file is what the start-up script says (HeadConfig). Once the run is over, or cannot be carried out here, the groups
of the run are closed: no more instances are asked for. Standard library alone, Python 3.11 or newer.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ems.base import aside
from ems.base.errors import EmsError
from ems.node.agent.endings import GOES_ON
from ems.node.aws.signed import Aws, metadata
from ems.node.environments import archive
from ems.node.environments.python import find
from ems.node.environments.ready import BOOT, CODE, FAILED, ORDER
from ems.node.environments.recipe import Order
from ems.node.environments.scratch import key_of
from ems.node.run_folder import last_words

AGENT = "ems.node.aws.head"
MANIFEST, ENDED = "manifest.json", "ended.txt"
UV = "bin/uv"  # a file of the manifest that is fetched where an environment has to be built
LOGS = ("job.log", "agent.log")
NOTICE = "meta-data/spot/instance-action"
MOST_STARTS = 3
LOOK_S = 5.0  # between two agents, two looks for a notice, two copies of the logs
LOG_BYTES = 4_000_000  # of a log's end, which is copied


@dataclass(frozen=True)
class HeadConfig:
    """What an instance is told. `run`, `archives`: prefixes in the bucket; `groups`: all of the run."""

    region: str
    bucket: str
    run: str
    archives: str
    folder: str
    groups: tuple[str, ...]


def main() -> None:
    """Ends as the run does; the start-up script then switches the instance off."""
    said = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Node(HeadConfig(**{**said, "groups": tuple(said["groups"])})).work()


class Node:
    """One instance. What it prints is on its console."""

    def __init__(self, config: HeadConfig) -> None:
        self._config, self._aws = config, Aws(config.region, config.bucket)
        self._root, self._run_dir = Path(config.folder), Path(config.folder, "run")
        self._agent: subprocess.Popen[bytes] | None = None
        self._leaves = False  # it is taken away, or switched off
        self._copied: dict[str, object] = {}  # what was copied of each file

    def work(self) -> None:
        """An instance that is taken away leaves the run to the next one."""
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

    def _end(self, why: str) -> None:
        """No instance is asked for any more; `why` the run is not over, for those who look."""
        if why:
            with suppress(OSError):
                file = self._root / ENDED
                file.write_text(why, encoding="utf-8")
                self._aws.put(f"{self._config.run}{ENDED}", file)
        for group in self._config.groups:
            self._aws.close(group)

    def _carried_out(self) -> str:
        """Have agents at work until the run is over; else why it cannot be carried out here."""
        self._fetch()
        with self._repeating(self._copy), self._repeating(self._heed):
            for number in range(MOST_STARTS):
                code = self._agent_ended()
                if code == 0 or self._leaves:
                    return ""
                if (self._run_dir / FAILED).exists():
                    return (self._run_dir / FAILED).read_text(encoding="utf-8")
                say(f"agent {number + 1} ended with exit code {code}")
                time.sleep(0 if code == GOES_ON else LOOK_S)
        return f"the agent ended {MOST_STARTS} times without a result: {last_words(self._run_dir)}"

    def _agent_ended(self) -> int:
        """The exit code of an agent."""
        command = [sys.executable, "-I", "-c", BOOT, str(self._run_dir / CODE), str(self._run_dir), "head", AGENT]
        with (self._run_dir / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(command, cwd=self._run_dir, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self._leaves:
            self._agent.terminate()
        return self._agent.wait()

    def _fetch(self) -> None:
        """What the run's manifest lists: key, SHA-256 and path of each file; paths are from the folder."""
        self._run_dir.mkdir(parents=True, exist_ok=True)
        manifest = self._root / MANIFEST
        self._aws.get(f"{self._config.run}{MANIFEST}", manifest)
        listed = {each["path"]: each for each in json.loads(manifest.read_text(encoding="utf-8"))}
        for path in listed.keys() - {UV}:
            self._fetch_file(listed[path])
        order = Order.read(self._run_dir / ORDER)
        recipes = (order.agents, order.experiment)
        has = [self._has_archive(Path(order.archives, key_of(each, find(each, order)))) for each in recipes]
        if not all(has) and UV in listed:
            self._fetch_file(listed[UV])
            (self._root / UV).chmod(0o755)

    def _fetch_file(self, said: Mapping[str, str]) -> None:
        file = self._root / said["path"]
        file.parent.mkdir(parents=True, exist_ok=True)
        self._aws.get(said["key"], file, said["sha256"])

    def _has_archive(self, folder: Path) -> bool:
        """Fetch one that an instance like this has built before; the first one builds it."""
        try:
            for name in (archive.SUM, archive.FILE):
                part = self._root / name
                self._aws.get(f"{self._config.archives}{folder.name}/{name}", part)
                folder.mkdir(parents=True, exist_ok=True)
                part.replace(folder / name)
        except FileNotFoundError:
            return False
        self._copied[str(folder)] = True
        return True

    # Meanwhile

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

    def _leave(self) -> None:
        """What is finished is stored; the rest is for the next one."""
        self._leaves = True
        if self._agent:
            self._agent.terminate()

    def _copy(self) -> None:
        """What others look for: logs as they grow, archives that were built here."""
        for name in LOGS:
            self._copy_log(self._run_dir / name)
        for lock in Path(Order.read(self._run_dir / ORDER).archives).glob(f"*/{archive.LOCK}"):
            if self._copied.setdefault(str(lock.parent)) is None:
                for name in (archive.FILE, archive.SUM):
                    self._aws.put(f"{self._config.archives}{lock.parent.name}/{name}", lock.parent / name)
                self._copied[str(lock.parent)] = True

    def _copy_log(self, log: Path) -> None:
        size = log.stat().st_size if log.exists() else 0
        if size == self._copied.get(log.name, 0):
            return
        copy = self._root / f"{log.name}.copy"
        with log.open("rb") as file:
            file.seek(max(0, size - LOG_BYTES))
            aside.write(copy, file.read(LOG_BYTES))
        self._aws.put(f"{self._config.run}{log.name}", copy)
        self._copied[log.name] = size


def say(step: str) -> None:
    """On the console."""
    print(f"ems: {step}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
