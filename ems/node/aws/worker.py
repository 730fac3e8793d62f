"""An instance of workers: it fetches what the run needs, and takes part in its sweep until it is switched off.

One that cannot do so is given back: its group is then smaller by one. Standard library alone, Python 3.11 or newer.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from ems.node.aws.boot import LOOK_S, MOST_STARTS, Instance, NodeConfig, say
from ems.node.aws.signed import metadata
from ems.node.job import strays

MEMBER = "ems.node.aws.member"
LOG = "workers.log"


class Worker(Instance):
    """What its processes print is in the bucket, by the instance's name."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._name = metadata("meta-data/instance-id")

    def _end(self, why: str) -> None:
        say(f"{self._name} is given back: {why}")
        self._aws.give_back(self._name)

    def _carried_out(self) -> str:
        strays.adopt()
        self._fetch()
        with self._meanwhile():
            while self._lacking() and not self._leaves:  # the head builds it
                time.sleep(LOOK_S)
            for number in range(MOST_STARTS):
                self._end_strays()
                code = self._ended(MEMBER, LOG)
                if self._leaves:
                    return ""
                say(f"member {number + 1} ended with exit code {code}")
                time.sleep(LOOK_S)
        return f"it failed {MOST_STARTS} times, see {self._config.run}{self._log_key}"

    def _end_strays(self) -> None:
        """Of a member that was killed."""
        for pid in strays.descendants():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def _log_key(self) -> str:
        return f"{self._name}.log"

    def _copy(self) -> None:
        self._copy_log(self._run_dir / LOG, self._log_key)
