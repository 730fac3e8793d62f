"""A machine as it is reached by SSH: what it has, the folders of EMS there, files that go there, questions."""

from __future__ import annotations

import json
import platform
import shlex
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from ems.base.backoff import Backoff
from ems.base.errors import EmsError, Unreachable, UserError
from ems.base.messages import Say
from ems.clusters.here import Here
from ems.clusters.openssh import COMMAND_S, TOO_SLOW, Answer, Host, NotConnected
from ems.node.agent.config import AgentConfig
from ems.node.run_folder import LOG_BYTES

PATIENT_S = 120.0
AWAY_S = 180.0  # of a connection that was there
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0
QUICK_S = 3.0
SLOWEST = 500_000  # bytes a second, of a file that goes there
DIGITS = 64  # of a SHA-256
NO_LOG = 44
TOOLS = 'PATH="$PATH:$HOME/.local/bin:$HOME/.cargo/bin"; export PATH'
PYTHON = """\
suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null </dev/null; }
for python in python3 python3.14 python3.13 python3.12 python3.11 ""; do suits "$python" && break; done
if [ -z "$python" ]; then
    uv python find '>=3.11' >/dev/null 2>&1 || uv python install >/dev/null 2>&1 </dev/null
    python=$(uv python find '>=3.11' 2>/dev/null)
fi"""
LOOK = f"""{TOOLS}
{PYTHON}
printf '%s\\n' "$HOME" "$python" "$(command -v uv)" "$(uname -sm)" "$(nproc)" \
    "$(sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo)" "$(date +%s)"
"""
SEND = """\
umask 077
mkdir -p {folder} || exit
part={part}
trap 'rm -f "$part"' EXIT
trap 'exit 1' HUP INT TERM
find {folder} -maxdepth 1 -name '*.part' -mtime +0 -exec rm -f {{}} +  # of who was killed
cat > "$part" && [ "$(wc -c < "$part")" -eq {size} ] && chmod "$mode" "$part" && mv -f "$part" {final}
"""
ASK = """\
import sys
sys.path.insert(0, sys.argv[1])
try:
    from {module} import main
except ImportError:  # of code that is damaged there
    print("{{}}")
else:
    main()"""


@dataclass(frozen=True)
class About:
    """What a server has. `python`, `uv`: paths, "" without one; `system`: as `uname -sm` says it; `clock`: seconds."""

    home: str
    python: str
    uv: str
    system: str
    cores: int
    memory_gb: float
    clock: int


@dataclass(frozen=True)
class Reached:
    """How a machine is reached, and its folders. `host`: its name for `ssh`; "": it is not said.

    `unattended`: whether one logs in there without a person; `is_here`: it is this one, where a runner works.
    """

    host: str
    unattended: bool
    is_here: bool
    work_dir: str
    environments_dir: str


T = TypeVar("T")


class Site:
    """The folders of EMS on one machine."""

    def __init__(self, reached: Reached, login: str) -> None:
        """`login`: the command by which a person connects. UserError without a host, unless a runner works there."""
        if not reached.host and not reached.is_here:
            raise UserError(
                "A server needs `host`: its name for `ssh`.", "Set it in the place's stack: host: me@server"
            )
        ssh = None if reached.is_here else Host(reached.host, login, unattended=reached.unattended)
        self.host, self._reached = ssh or Here(), reached

    @cached_property
    def about(self) -> About:
        """What it has. UserError without a Python for EMS; Unreachable."""
        said = self._done("to say what it has", self._in_shell(LOOK), timeout_s=PATIENT_S)
        home, python, uv, system, cores, memory_kb, clock = said.decode(errors="replace").splitlines()[-7:]
        if not python:
            hint = "Install one of them there: Python 3.11 or newer, or `uv`, which brings Pythons of its own."
            raise UserError(f"{self.host.name} has neither Python 3.11 nor `uv`.", hint)
        return About(home, python, uv, system, int(cores or 1), int(memory_kb or 0) * 1024e-9, int(clock))

    def _in_shell(self, script: str) -> str:
        """A script of `sh` as it runs there, with what it is to find of Python, `uv` and variables."""
        return script

    @property
    def folder(self) -> PurePosixPath:
        """Where EMS works there."""
        return self._absolute(self._reached.work_dir)

    @property
    def environments(self) -> PurePosixPath:
        """Where archives of environments are."""
        named = self._reached.environments_dir
        return self._absolute(named) if named else self.folder / "environments"

    def make_folder(self) -> None:
        """Have that where EMS works there; EmsError: no space, no right."""
        self._done(f"a folder {self.folder}", f"umask 077; mkdir -p {shlex.quote(str(self.folder))}")

    def run_dir(self, experiment_id: str) -> PurePosixPath:
        """The folder of an experiment's runs there."""
        return self.folder / "runs" / experiment_id

    def _absolute(self, path: str) -> PurePosixPath:
        home = PurePosixPath(self.about.home)
        return home / path.removeprefix("~/")

    def uv(self) -> str:
        """The path of a `uv` there; one that is missing is brought along. UserError where ours does not run there."""
        if self.about.uv:
            return self.about.uv
        import uv  # which agents do without

        here, own = Path(uv.find_uv_bin()), self.folder / "bin/uv"
        if self.about.system != f"{platform.system()} {platform.machine()}":
            hint = "Install it there, see docs.astral.sh/uv; it needs no rights."
            raise UserError(f"{self.host.name} ({self.about.system}) has no `uv`, and ours does not run there.", hint)
        if not self._has(own, here.stat().st_size):
            self.send(here, own, "755")
        return str(own)

    def bring(self, file: Path, there: PurePosixPath, *, again: bool) -> None:
        """Have a file there whose name begins with its SHA-256; `again`: one of its size may yet be damaged."""
        if not self._has(there, file.stat().st_size, file.name[:DIGITS] if again else ""):
            self.send(file, there)

    def _has(self, there: PurePosixPath, size: int, digest: str = "") -> bool:
        file = shlex.quote(str(there))
        script = f'[ -f {file} ] && [ "$(wc -c < {file})" -eq {size} ]'
        if digest:
            script += f' && [ "$(sha256sum < {file} | cut -c -{DIGITS})" = {digest} ]'
        return self.host.run(script, timeout_s=_lasts_s(size), repeats=True).code == 0

    def send(self, file: Path, there: PurePosixPath, mode: str = "600") -> None:
        """Replace a file there, by one that is whole. EmsError: no space, no right."""
        size, part = file.stat().st_size, shlex.quote(f"{there}.{uuid.uuid4().hex}.part")
        said = SEND.format(folder=shlex.quote(str(there.parent)), part=part, final=shlex.quote(str(there)), size=size)
        self._done(f"the file {there}", f"mode={mode}\n{said}", file, timeout_s=_lasts_s(size))

    def patiently(self, do: Callable[[], T], say: Say) -> T:
        """What `do` gives, which may be repeated: after a cut, once there is a connection again, within AWAY_S.

        A machine that has never answered is not waited for.
        """
        pauses, give_up_at = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S), 0.0
        while True:
            try:
                return do()
            except Unreachable as error:
                has_answered = "about" in vars(self)
                if isinstance(error, NotConnected) or not has_answered or 0 < give_up_at < time.monotonic():
                    raise
                if not give_up_at:
                    say(f"waiting for a connection: {error.message}")
                    give_up_at = time.monotonic() + AWAY_S
            pauses.wait()

    def _done(
        self,
        what: str,
        script: str,
        payload: bytes | Path = b"",
        *,
        timeout_s: float = COMMAND_S,
        repeats: bool = True,
    ) -> bytes:
        """What a script says there that may run twice. EmsError if it fails, with its last word on `what` it is for."""
        answer = self.host.run(script, payload, timeout_s=timeout_s, repeats=repeats)
        if answer.code == TOO_SLOW:
            message = f"{self.host.name} is slow ({what}): no end within {timeout_s:g} s."
            raise Unreachable(message, "Is it busy? It may answer later.")
        if answer.code:
            hint = "Is its disk full, or may you not write there? Another folder: `work_dir` of the place."
            raise EmsError(f"{self.host.name} refused {what}: {_last_word(answer)}", hint)
        return answer.out

    def carried(self, config: AgentConfig, *, again: bool) -> AgentConfig:
        """Have the code and the inputs of a run there: what its agent there is told. The rest as of `bring`."""
        bundle, files = Path(config.bundle), {name: Path(file) for name, file in config.inputs.items()}
        there = self.folder / "bundles" / bundle.name
        inputs = {name: self.folder / "inputs" / file.name for name, file in files.items()}
        self.bring(bundle, there, again=again)
        for name, file in files.items():
            self.bring(file, inputs[name], again=again)
        root, paths = str(self.folder), {name: str(file) for name, file in inputs.items()}
        return replace(config, root=root, bundle=str(there), inputs=paths)

    def log(self, run_dir: PurePosixPath, start: int) -> bytes | None:
        """As `Place.log`, of a run's folder there. EmsError if there is a log that cannot be read."""
        file, begin = shlex.quote(str(run_dir / "job.log")), f"+{start + 1}" if start >= 0 else str(-start)
        script = f"[ -e {file} ] || exit {NO_LOG}\ntail -c {begin} {file} | head -c {LOG_BYTES}"
        answer = self.host.run(script, repeats=True)
        if answer.code == NO_LOG:
            return None
        if answer.code or answer.err:
            raise EmsError(f"{self.host.name} does not give the job's log: {_last_word(answer)}", f"Look there: {file}")
        return answer.out

    def nudge(self, run_dir: PurePosixPath) -> None:
        """As `Place.nudge`, of a run's folder there."""
        config, bell = (shlex.quote(str(run_dir / name)) for name in ("agent.json", "agent.listen"))
        with suppress(Unreachable):  # the agent hears it with its next beat
            self.host.run(f"[ ! -e {config} ] || : > {bell}", repeats=True)

    def is_connected(self) -> bool:
        """Whether it is reached without anything being opened."""
        return isinstance(self.host, Here) or self.host.is_connected()

    def answered(
        self, module: str, code: PurePosixPath, question: Mapping[str, Any], timeout_s: float = PATIENT_S
    ) -> dict[str, Any]:
        """What `main` of a module answers there, from EMS's code in the zip `code`; nothing where that is not there,
        or damaged.

        `content`: the bytes that follow an answer's line. EmsError: what is asked for could not be obtained there.
        """
        said, content = self._said(module, code, question, f"to {question['ask']}", timeout_s, repeats=True)
        return self._allowed({**said, "content": content} if content else said)

    def answered_each(
        self, module: str, code: PurePosixPath, questions: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any] | EmsError]:
        """As `answered`, of several questions in one command, which is given up after QUICK_S; [] without the code."""
        said, content = self._said(module, code, {"each": questions}, "to answer", QUICK_S, repeats=False)
        found: list[dict[str, Any] | EmsError] = []
        start = 0
        for answer in said.get("each", ()):
            end = start + answer.get("size", 0)
            try:
                found.append(self._allowed({**answer, "content": content[start:end]}))
            except EmsError as error:
                found.append(error)
            start = end
        return found

    def _said(
        self,
        module: str,
        code: PurePosixPath,
        question: Mapping[str, Any],
        what: str,
        timeout_s: float,
        *,
        repeats: bool,
    ) -> tuple[dict[str, Any], bytes]:
        """The line that a module's `main` prints there, and what follows it."""
        file, ask = shlex.quote(str(code)), ASK.format(module=module)
        script = f"{TOOLS}\n[ -f {file} ] || {{ echo '{{}}'; exit; }}\n"
        script += f"exec {shlex.quote(self.about.python)} -I -c {shlex.quote(ask)} {file}"
        given = json.dumps(question).encode()
        done = self._done(what, self._in_shell(script), given, timeout_s=timeout_s, repeats=repeats)
        line, _, content = done.partition(b"\n")
        return json.loads(line), content

    def _allowed(self, answer: dict[str, Any]) -> dict[str, Any]:
        if "refused" in answer:
            kind = UserError if answer.get("of_user") else EmsError
            raise kind(f"{self.host.name}: {answer['refused']}", answer["hint"])
        return answer


def _lasts_s(size: int) -> float:
    """A command there that reads or gets a file of so many bytes."""
    return PATIENT_S + size / SLOWEST


def _last_word(answer: Answer) -> str:
    """Of what failed there."""
    return (answer.err.strip().splitlines() or [f"exit code {answer.code}"])[-1]
