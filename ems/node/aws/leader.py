"""The instance that leads a run: it fetches the run, has an agent carry it out, and closes the groups of the run.

Standard library alone, Python 3.11 or newer.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ems.node.agent.endings import GOES_ON
from ems.node.aws.boot import ENDED, LOOK_S, MOST_STARTS, Instance, say
from ems.node.environments import archive
from ems.node.environments.ready import FAILED, ORDER
from ems.node.environments.recipe import Order
from ems.node.run_folder import last_words

AGENT = "ems.node.aws.head"
LOGS = ("job.log", "agent.log")


class Leader(Instance):
    """The next one goes on where the run was."""

    def _end(self, why: str) -> None:
        """No instance is asked for any more; `why` the run is not over, for those who look."""
        if why:
            with suppress(OSError):
                file = self._root / ENDED
                file.write_text(why, encoding="utf-8")
                self._aws.put(f"{self._config.run}{ENDED}", file)
        for group in reversed(self._config.groups):
            self._aws.close(group)

    def _carried_out(self) -> str:
        """Have agents at work until the run is over."""
        self._fetch()
        if self._lacking():
            self._fetch_uv()
        with self._meanwhile():
            for number in range(MOST_STARTS):
                code = self._ended(AGENT, "agent.log")
                if code == 0 or self._leaves:
                    return ""
                if (self._run_dir / FAILED).exists():
                    return (self._run_dir / FAILED).read_text(encoding="utf-8")
                say(f"agent {number + 1} ended with exit code {code}")
                time.sleep(0 if code == GOES_ON else LOOK_S)
        return f"the agent ended {MOST_STARTS} times without a result: {last_words(self._run_dir)}"

    def _copy(self) -> None:
        """Logs as they grow, archives that were built here."""
        for name in LOGS:
            self._copy_log(self._run_dir / name, name)
        for lock in Path(Order.read(self._run_dir / ORDER).archives).glob(f"*/{archive.LOCK}"):
            if self._copied.setdefault(str(lock.parent)) is None:
                for name in (archive.FILE, archive.SUM):
                    self._aws.put(f"{self._config.archives}{lock.parent.name}/{name}", lock.parent / name)
                self._copied[str(lock.parent)] = True
