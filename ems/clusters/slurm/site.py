"""A Slurm machine as it is reached by SSH: in a login shell, where its commands, modules and variables are."""

from __future__ import annotations

import hashlib
import shlex
from functools import cached_property
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from ems.base.errors import EmsError, UserError
from ems.clusters import shipping, site
from ems.clusters.site import TOOLS, Reached
from ems.clusters.slurm.wanted import Wanted

ANSWERS = "ems.clusters.slurm.answers"
LOGIN = "exec 3>&1 4<&0 >&2 </dev/null\nexec bash -l -c {script}"  # a profile may print, and read
IN_LOGIN = 'exec >&3 <&4 3>&- 4<&-\n{load}{tools}\ncache="${{XDG_CACHE_HOME:-$HOME/.cache}}"\n'
IN_LOGIN += 'export EMS_CACHE_DIR="${{EMS_CACHE_DIR:-$cache/ems}}"\n{script}'
LOAD = 'for module in {modules}; do module load "$module" >/dev/null 2>&1 </dev/null; done\n'
SLOW_S = 240.0  # of a question for which several commands of Slurm are called
EXPAND = """\
import os, sys
for path in sys.argv[1:]:
    print(os.path.join(os.path.expanduser("~"), os.path.expanduser(os.path.expandvars(path))))"""


class Site(site.Site):
    """The folders of EMS there, and what is asked of Slurm."""

    def __init__(self, wanted: Wanted, login: str) -> None:
        """`login`: the command by which a person connects."""
        super().__init__(reached(wanted), login)
        self._modules = wanted.modules

    def _in_shell(self, script: str) -> str:
        load = LOAD.format(modules=shlex.join(self._modules)) if self._modules else ""
        return LOGIN.format(script=shlex.quote(IN_LOGIN.format(load=load, tools=TOOLS, script=script)))

    @cached_property
    def _expanded(self) -> dict[str, str]:
        """What the names of folders stand for there."""
        names = [name for name in (self._reached.work_dir, self._reached.environments_dir) if name]
        words = shlex.join([self.about.python, "-I", "-c", EXPAND, *names])
        found = self._done("to say where its folders are", self._in_shell(words)).decode().splitlines()
        return dict(zip(names, found, strict=True))

    def _absolute(self, path: str) -> PurePosixPath:
        found = self._expanded[path]
        if "$" in found:
            hint = "Name a variable that a login shell there has (ssh HOST, then: env), or a folder by its path."
            raise UserError(f"The folder {path} has a variable that {self.host.name} does not have.", hint)
        return PurePosixPath(found)

    @cached_property
    def code(self) -> PurePosixPath:
        """EMS's own code there, by which it answers."""
        return self._sent_code(again=False)

    def _sent_code(self, *, again: bool) -> PurePosixPath:
        with TemporaryDirectory() as folder:
            file = Path(folder, "ems.zip")
            shipping.zip_code(file)
            named = file.rename(file.with_name(f"{hashlib.sha256(file.read_bytes()).hexdigest()}.zip"))
            there = self.folder / "code" / named.name
            self.bring(named, there, again=again)
        return there

    def ask(self, question: str, **words: Any) -> dict[str, Any]:
        """What `answers` has of it. A question may be asked twice. EmsError, UserError: what is refused there."""
        asked = {"ask": question, **words}
        found = self.answered(ANSWERS, self.code, asked, SLOW_S)
        if not found and question in {"look", "submit", "survey", "probe"}:  # of which one has no empty answer
            found = self.answered(ANSWERS, self._sent_code(again=True), asked, SLOW_S)
            if not found:
                raise EmsError(
                    f"{self.host.name} cannot run EMS's code.", f"Is {self.folder} a folder of your own there?"
                )
        return found


def reached(wanted: Wanted) -> Reached:
    """How the machine of these settings is reached."""
    work_dir = wanted.work_dir or "ems"
    environments = wanted.environments_dir or f"{work_dir}/environments"
    return Reached(wanted.host, wanted.unattended, wanted.is_here, work_dir, environments)
