"""`ems env`: the commands about pinned environments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ems import lab as laboratory
from ems.base.console import out, working
from ems.base.errors import ProvenanceError, UserError
from ems.base.messages import counted

environments = typer.Typer(
    help="Lock, check and build pinned environments.",
    epilog="[bold]Example[/]  ems env lock digits && ems env check digits",
    no_args_is_help=True,
)


def _name(given: str) -> str:
    from ems.stack.fields import NAME

    try:
        return str(NAME.check(given))
    except ValueError as error:
        raise UserError(f"The environment's name {error}.") from error


EnvironmentName = Annotated[str, typer.Argument(help="Name of a folder in environments/.", callback=_name)]


@environments.command("lock", epilog="[bold]Example[/]  ems env lock digits --upgrade")
def env_lock(
    name: EnvironmentName,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Take the newest versions allowed.")] = False,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Make the environment of a requirements.txt, or the pip part of environment.yml."),
    ] = None,
) -> None:
    """Pin environments/NAME/requirements.in into requirements.txt, with hashes, for all platforms."""
    from ems.provenance import building, environment, existing

    lab = laboratory.find()
    if source:
        left_out = existing.adopt(source.resolve(), lab.root / "environments" / name)
        out.flow(f"left out: {', '.join(left_out)}" if left_out else f"wrote environments/{name}/{environment.WISHES}")
    folder = environment.folder(lab.root, name)
    with working(f"locking {name}"):
        building.lock(folder, upgrade)
    out.flow(f"wrote {folder / environment.LOCK}")


@environments.command("check", epilog="[bold]Example[/]  ems env check digits")
def env_check(name: EnvironmentName) -> None:
    """Check that a lock is fully pinned with hashes, and name libraries that only render."""
    from ems.provenance import environment, pins

    folder = environment.folder(laboratory.find().root, name)
    pinned = environment.from_folder(folder)
    findings = pins.check(pinned)
    warnings = [*findings.warnings, *pins.hints(folder, pinned)]
    for finding in (*findings.errors, *(f"warning: {each}" for each in warnings)):
        out.flow(str(finding))
    if not findings.errors:
        packages = counted(len(pins.pinned(pinned.lock)), "package")
        out.flow(f"{'' if warnings else '✓ '}{name} is fully pinned: {packages} for Python {pinned.python}")
    raise typer.Exit(ProvenanceError.exit_code if findings.errors else 0)


@environments.command("build", epilog="[bold]Example[/]  ems env build digits")
def env_build(name: EnvironmentName) -> None:
    """Build an environment into the user's cache, once per lock, and print its folder."""
    from ems.provenance import building, environment

    pinned = environment.from_folder(environment.folder(laboratory.find().root, name))
    with working(f"building {name}") as step:
        folder = building.build(pinned, step)
    typer.echo(folder)
