"""An instance of workers: it fetches what the run needs, and takes part in its sweep until it is switched off.

One that cannot do so is given back: its group is then smaller by one. Standard library alone, Python 3.11 or newer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from ems.node.agent.endings import GOES_ON
from ems.node.aws.boot import LOOK_S, Instance, NodeConfig, say
from ems.node.aws.signed import metadata
from ems.node.environments.ready import BOOT, CODE
from ems.node.job import strays

MEMBER = "ems.node.aws.member"
LOG = "workers.log"
MOST_STARTS = 3


class Worker(Instance):
    """What its processes print is in the bucket, by the instance's name."""

    def __init__(self, config: NodeConfig) -> None:
        super().__init__(config)
        self._member: subprocess.Popen[bytes] | None = None
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
                code = self._member_ended()
                if self._leaves:
                    return ""
                say(f"member {number + 1} ended with exit code {code}")
                time.sleep(0 if code == GOES_ON else LOOK_S)
        return f"it failed {MOST_STARTS} times, see {self._config.run}{self._log_key}"

    def _member_ended(self) -> int:
        """The exit code of a process that has workers join."""
        for pid in strays.descendants():  # of one that was killed
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        command = [sys.executable, "-I", "-c", BOOT, str(self._run_dir / CODE), str(self._run_dir), "head", MEMBER]
        with (self._run_dir / LOG).open("ab") as log:
            nothing = subprocess.DEVNULL
            self._member = subprocess.Popen(command, cwd=self._run_dir, stdin=nothing, stdout=log, stderr=log)
        if self._leaves:
            self._member.terminate()
        return self._member.wait()

    def _leave(self) -> None:
        super()._leave()
        if self._member:
            self._member.terminate()

    @property
    def _log_key(self) -> str:
        return f"{self._name}.log"

    def _copy(self) -> None:
        self._copy_log(self._run_dir / LOG, self._log_key)
