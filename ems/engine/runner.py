"""The `pulumi` program, set up for one lab.

It is run, not linked: on the user's terminal its display, its Ctrl-C and its exit code are Pulumi's own.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems.base.errors import EngineError
from ems.base.messages import Say, quiet
from ems.base.process import CommandFailed
from ems.engine import install as engine
from ems.engine import manners
from ems.engine.repair import repair
from ems.engine.stack_text import keeping_text
from ems.lab import Lab


@dataclass
class Pulumi:
    """The `pulumi` program, set up for one lab."""

    lab: Lab
    say: Say = quiet  # is told the steps where the program has to be built
    display: int | None = None  # file descriptor for what `attached` shows; None: standard output
    _folder: Path | None = None

    @classmethod
    def of(cls, lab: Lab, say: Say = quiet, display: int | None = None) -> Pulumi:
        """The `pulumi` of `lab`, which is looked for when it is first needed. UserError as of `Lab.require`."""
        lab.require()
        return cls(lab, say, display)

    @property
    def folder(self) -> Path:
        """Where the program is: built, if there is none. EngineError if that fails."""
        return self.ensure(self.say)

    def ensure(self, say: Say) -> Path:
        """`folder`, where `say` is told the steps of building it."""
        self._folder = self._folder or engine.ensure(say)
        return self._folder

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """The environment variables that `pulumi` runs with: this process's, what the engine needs, and `extra`."""
        return {**engine.environment(self.folder, self.lab.root), **extra}

    def backend(self) -> Path | None:
        """Where Pulumi keeps the lab's states and locks; None if that is not a folder."""
        return manners.backend_folder(engine.settings(self.lab.root).get("PULUMI_BACKEND_URL", ""), self.lab.root)

    def quietly(self, *arguments: str, **extra: str) -> str:
        """Standard output; CommandFailed with both streams. An interruption is handed on, as `attached` does."""
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self._running(arguments, extra, **pipes, text=True, errors="replace") as child:
            stdout, stderr = child.communicate()
        if child.returncode:
            raise CommandFailed(["pulumi", *arguments], child.returncode, stdout, stderr)
        return str(stdout)

    def attached(self, *arguments: str, **extra: str) -> int:
        """Run on this process's terminal and return the exit code.

        Pulumi is let end in order after a Ctrl-C or SIGTERM; then KeyboardInterrupt.
        """
        with self._running(arguments, extra, stdout=self.display) as child:
            return child.wait()

    def _running(
        self, arguments: Sequence[str], extra: Mapping[str, str], **how: Any
    ) -> AbstractContextManager[subprocess.Popen[Any]]:
        return manners.running([str(self.folder / "pulumi"), *arguments], self.lab.root, self.environment(extra), **how)


def make_ready(
    pulumi: Pulumi, stack: str, is_gone: Callable[[Mapping[str, Any]], bool] = lambda _resource: False
) -> None:
    """The stack exists, and its state has no interrupted creation and no resource whose row is gone.

    `is_gone` says so of a resource of the state, as after the database was lost or restored: the next update makes such
    rows again. To be called in one's `turn`. EngineError if the state cannot be read, or was damaged (see `repair`);
    CommandFailed if Pulumi fails.
    """
    if backend := pulumi.backend():
        repair(backend, [manners.state(backend, pulumi.lab.name, stack)])
    deployment = export(pulumi, stack)
    if deployment is None:
        _init(pulumi, stack)
    elif deployment.get("pending_operations") or any(map(is_gone, deployment.get("resources") or ())):
        pulumi.quietly("refresh", "--yes", "--skip-preview", "--clear-pending-creates", "--stack", stack)


def _init(pulumi: Pulumi, stack: str) -> None:
    try:
        with keeping_text(pulumi.lab.stack_file(stack)):
            pulumi.quietly("stack", "init", "--no-select", "--stack", stack)
    except CommandFailed as error:
        if not manners.says_stack_exists(error):  # made meanwhile by a command whose `ems` was killed
            raise


def stacks(pulumi: Pulumi) -> list[str]:
    """Names of the stacks that Pulumi's backend has a state of, also those without a file in the working tree.

    EngineError if a state cannot be read, or was damaged (see `repair`).
    """
    if backend := pulumi.backend():
        repair(backend, manners.states(backend, pulumi.lab.name))
        return [state.stem for state in manners.states(backend, pulumi.lab.name)]
    listed = json.loads(pulumi.quietly("stack", "ls", "--json"))
    return sorted(str(stack["name"]).rpartition("/")[2] for stack in listed)


def has_state(pulumi: Pulumi, stack: str) -> bool:
    """Whether Pulumi knows the stack."""
    if backend := pulumi.backend():
        return manners.state(backend, pulumi.lab.name, stack).exists()
    return export(pulumi, stack) is not None


def export(pulumi: Pulumi, stack: str) -> dict[str, Any] | None:
    """The deployment in the stack's state; None if there is no such stack yet, EngineError if it cannot be read."""
    if backend := pulumi.backend():
        return manners.deployment(manners.state(backend, pulumi.lab.name, stack))
    try:
        exported = json.loads(pulumi.quietly("stack", "export", "--stack", stack))
    except CommandFailed as error:
        if manners.says_no_such_stack(error):
            return None
        raise EngineError(f"The state of stack {stack} cannot be read: {error.message}") from error
    return exported.get("deployment") or {}
