"""A server as it is reached: what runs of EMS may have there, and questions about them."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from ems.clusters import site
from ems.clusters.server.settings import Wanted
from ems.node.environments.ready import CODE
from ems.node.leases import Machine

LOGOUT = """\
name=KillUserProcesses
busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager $name 2>/dev/null ||
    cat /etc/systemd/logind.conf /usr/lib/systemd/logind.conf.d/*.conf /etc/systemd/logind.conf.d/*.conf 2>/dev/null |
    sed -n "s/^ *$name *= *//p" | tail -n 1
"""


class Site(site.Site):
    """The folders of EMS on one server."""

    def __init__(self, wanted: Wanted, login: str) -> None:
        """`login`: the command by which a person connects. UserError without a host, unless a runner works there."""
        super().__init__(wanted, login)
        self.wanted = wanted

    @property
    def machine(self) -> Machine:
        """What runs of EMS may have there together."""
        cores, memory_gb = self.wanted.has_cores or self.about.cores, self.wanted.has_memory_gb or self.about.memory_gb
        return Machine(cores, memory_gb, self.wanted.has_gpus)

    def ends_at_logout(self) -> bool:
        """Whether systemd there ends all of a user's processes with the last login, runs too."""
        said = self.host.run(LOGOUT, repeats=True).out.decode(errors="replace").split()
        return said[-1:] in (["true"], ["yes"], ["on"], ["1"])

    def ask(self, question: str, run_dir: PurePosixPath, **more: Any) -> dict[str, Any]:
        """What `ems.node.host` answers of a run's folder; nothing where that is not there, or damaged.

        EmsError: what is asked for could not be obtained there.
        """
        return self.answered("ems.node.host", run_dir / CODE, {"ask": question, "run_dir": str(run_dir), **more})
