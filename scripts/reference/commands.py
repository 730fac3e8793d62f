"""Every command with its usage, help, arguments, options and examples, from the tree of commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence

import typer
import typer.main
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from ems.cli.app import app
from scripts.reference.markdown import code, table

INTRODUCTION = """# Commands

Every command has `--help`. `--debug`, anywhere on the line, also shows the traceback of an error. `--json` prints one
JSON value on standard output: see [JSON shapes](json.md). All commands share the same [exit codes](exit-codes.md).
"""
MARKUP = re.compile(r"\[/?(?:bold|dim)?\]")


def root() -> TyperGroup:
    return typer.main.get_group(app)


def walk(group: TyperGroup, name: str = "ems") -> Iterator[tuple[str, TyperCommand]]:
    """Name and command of each leaf, in the order of `--help`."""
    for word, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from walk(command, f"{name} {word}")
        elif isinstance(command, TyperCommand):
            yield f"{name} {word}", command


def page() -> str:
    found = list(walk(root()))
    overview = table(["command", "what it does"], ((link(name), first_line(command)) for name, command in found))
    general = table(["option of `ems`", "meaning"], option_rows(root()))
    return "\n".join([INTRODUCTION, overview, general, *(section(name, command) for name, command in found)])


def link(name: str) -> str:
    return f"[`{name}`](#{name.replace(' ', '-')})"


def first_line(command: TyperCommand) -> str:
    return inspect.cleandoc(command.help or "").partition("\n")[0]


def section(name: str, command: TyperCommand) -> str:
    arguments, options = list(argument_rows(command)), list(option_rows(command))
    parts = [f"## {name}\n", f"    {usage(name, command)}\n", inspect.cleandoc(command.help or "") + "\n"]
    parts += [table(["argument", "meaning"], arguments)] if arguments else []
    parts += [table(["option", "meaning"], options)] if options else []
    return "\n".join([*parts, *examples(command)])


def usage(name: str, command: TyperCommand) -> str:
    """Arguments in capitals, and in brackets where they may be left out."""
    words = " ".join(command.collect_usage_pieces(typer.Context(command, info_name=name)))
    upper = re.sub(r"\{(\w+)\}|\[(\w+)\]", lambda found: (found[1] or f"[{found[2]}]").upper(), words)
    return f"{name} {upper}" + (" ARGUMENTS..." if command.context_settings.get("allow_extra_args") else "")


def argument_rows(command: TyperCommand) -> Iterator[list[str]]:
    return records(command, [each for each in command.params if isinstance(each, TyperArgument)])


def option_rows(command: TyperCommand | TyperGroup) -> Iterator[list[str]]:
    return records(command, [each for each in command.params if isinstance(each, TyperOption)])


def records(command: TyperCommand | TyperGroup, shown: Sequence[TyperArgument | TyperOption]) -> Iterator[list[str]]:
    """What `--help` says of them: names with the kind of value, and the meaning; nothing of hidden ones."""
    context = typer.Context(command)
    for name, text in filter(None, (each.get_help_record(context) for each in shown)):
        yield [code(name), re.sub(r" *\[required\]", "", text)]


def examples(command: TyperCommand) -> Iterator[str]:
    """The epilog says `Example` or `Examples`, then commands with dots between."""
    text = MARKUP.sub("", command.epilog or "")
    shown = re.sub(r"^\s*Examples?\s+", "", text).strip()
    if shown:
        yield "Examples:\n\n" + "\n".join(f"    {line}" for line in shown.split(" · ")) + "\n"
