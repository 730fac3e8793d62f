"""One update of a stack, with its program and its provider in this process."""

from __future__ import annotations

from collections.abc import Callable

from ems.base.errors import EmsError, EngineError
from ems.base.process import CommandFailed
from ems.engine import manners
from ems.engine.hosting import hosted
from ems.engine.runner import Pulumi
from ems.lab.telling import Telling

UP = ("up", "--yes", "--skip-preview", "--suppress-permalink=true")


def update(
    pulumi: Pulumi, stack: str, declare: Callable[[], None], telling: Telling | None, *, detach: bool = False
) -> EmsError | None:
    """`pulumi up` of a stack whose program is `declare`: what it failed by, or None.

    What a person can fix is the error that program or provider met; the rest is an EngineError with Pulumi's words.
    Without `telling`, Pulumi shows everything on the terminal.
    """
    run = _shown if telling is None else _quiet
    with hosted(pulumi.lab, declare, detach=detach, telling=telling) as host:
        failure = run(pulumi, stack, (*UP, "--stack", stack, *host.arguments), host.environment)
        return next(iter(host.failures), failure) if failure else None


def _shown(pulumi: Pulumi, stack: str, words: tuple[str, ...], env: dict[str, str]) -> EngineError | None:
    code = pulumi.attached(*words, **env)
    if not code:
        return None
    return EngineError(f"`pulumi up` of {stack} ended with exit code {code}.", "Its messages stand above.")


def _quiet(pulumi: Pulumi, stack: str, words: tuple[str, ...], env: dict[str, str]) -> EngineError | None:
    try:
        pulumi.quietly(*words, **env)
    except CommandFailed as error:
        if error.code < 0:
            message = f"`pulumi up` of {stack} was killed by signal {-error.code}."
            return EngineError(message, f"A run that it had begun goes on by itself. Follow it: ems up {stack}")
        said = manners.diagnostics(error)
        return EngineError(f"`pulumi up` of {stack} failed:\n{said}", f"See all of it: ems up {stack} --verbose")
    return None
