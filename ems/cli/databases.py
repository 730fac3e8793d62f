"""`ems database`: the commands about the lab's database as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Annotated

import typer

from ems import databases
from ems import lab as laboratory
from ems.base.console import out, print_json, say, working
from ems.cli.options import Json

database = typer.Typer(
    help="Set up and examine the lab's database.",
    epilog="[bold]Example[/]  ems database check",
    no_args_is_help=True,
)


@contextmanager
def _connected() -> Iterator[tuple[str, databases.Database]]:
    lab = laboratory.find()
    with lab.database() as connected:
        yield lab.database_url, connected


@database.command("init", epilog="[bold]Example[/]  ems database init --print | psql lab")
def database_init(
    only_print: Annotated[
        bool, typer.Option("--print", "--dry-run", help="Print what would be run, and change nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make EMS's tables, or bring older ones up to date, and give the roles of a lab their rights; may be repeated."""
    from ems.views import database as view

    with _connected() as (url, connected):
        script = connected.setup_script() if only_print else ""
        if not only_print:
            with working("making tables"):
                connected.setup()
    if as_json:
        print_json(view.setup_object(url, script))
    else:
        typer.echo(script or f"ready: {url}", nl=not script)


@database.command("check", epilog="[bold]Examples[/]  ems database check · ems database check --json")
def database_check(as_json: Json = False) -> None:
    """Show the database's version, tables, your role and what it may do, latency and clock; exit code 4 for faults."""
    from ems.views import database as view

    with _connected() as (url, connected):
        found = connected.check()
    if as_json:
        print_json(view.as_object(url, found))
    else:
        out.flow(view.page(url, found))
    raise typer.Exit(4 if found.faults else 0)


@database.command(
    "copy", epilog="[bold]Example[/]  ems database copy sqlite:///.ems/ems.db postgresql://db.lab.edu/lab"
)
def database_copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="URL of the database that has the lab.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="URL of the database to copy it into.")],
    as_json: Json = False,
) -> None:
    """Copy a lab with all its results from one database to another, and compare all rows; may be repeated.

    Nothing must be under way. The first database stays as it is. Exit code 4 if the two differ in the end.
    """
    from ems.databases import comparing, copying
    from ems.views import database as view

    root = laboratory.find().root
    copying.refuse_target(source, target, root)
    with ExitStack() as opened:
        with copying.speaking_of("FROM"):
            here = opened.enter_context(closing(databases.connect(source, root)))
        with copying.speaking_of("TO"):
            there = opened.enter_context(closing(databases.connect(target, root)))
        compared = copying.copy(here, there, opened.enter_context(working("copying")))
    if as_json:
        print_json([view.compared_object(each) for each in compared])
    else:
        out.print(view.comparison(compared))
    comparing.raise_if_different(compared)
    say(f"Now set `ems:database` in Pulumi.yaml to {target}, and commit.")
