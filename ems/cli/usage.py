"""What is wrong with the words on a command line, told as all other errors are."""

from __future__ import annotations

import re
from typing import Any

import typer
from pydantic import ValidationError

from ems.base.console import Text
from ems.base.errors import UserError
from ems.base.messages import nearest, quoted, show

Usage: type[Exception] = typer.BadParameter.__mro__[1]  # the class of all such errors, which Typer gives no public name
ONE_OF = re.compile(r"'.*' is not one of (.*?)\.?")


def is_help(error: Exception) -> bool:
    """Whether it is a group of commands without a word, which shows its help."""
    return _kind(error) == "NoArgsIsHelpError"


def told(error: Any) -> UserError:
    """`error`: a Usage of Typer's."""
    context = error.ctx
    path = context.command_path if context else "ems"
    if words := re.fullmatch(r"No such command '(.*?)'\..*", error.message):
        return UserError(f"{path} has no command {quoted(words[1])}: {nearest(words[1], context.command.commands)}.")
    way = f"All that it takes: {path} --help"
    if _kind(error) == "NoSuchOption":
        return UserError(_unknown(error.option_name, context, path), way)
    if _kind(error) == "MissingParameter":
        about = Text.from_markup(error.param.help or "").plain.rstrip(".")
        problem = f"{path} lacks {_name(error.param)}: {_lower(about)}."
        return UserError(problem, f"{_example(context)}{way}")
    if isinstance(error, typer.BadParameter) and error.param:
        return UserError(f"{path}: {_name(error.param, with_value=False)} {_wrong(error)}.", way)
    return UserError(f"{path}: {_lower(error.format_message().rstrip('.'))}.", way)


def _kind(error: Exception) -> str:
    return type(error).__name__


def _unknown(option: str, context: Any, path: str) -> str:
    known = [word for each in context.command.get_params(context) for word in each.opts if word.startswith("--")]
    return f"{path} has no option {option}: {nearest(option, known)}."


def _name(parameter: Any, *, with_value: bool = True) -> str:
    """As it is written on the line."""
    metavar = parameter.metavar or (parameter.name or "").upper()
    if parameter.param_type_name == "argument":
        return str(metavar)
    return f"{parameter.opts[0]} {metavar}" if with_value else str(parameter.opts[0])


def _wrong(error: Any) -> str:
    """The value, and what is allowed."""
    said = error.message.removeprefix("Value error, ").rstrip(".")
    cause = error.__context__
    found = cause.errors()[0]["input"] if isinstance(cause, ValidationError) else None
    given = found[0] if isinstance(found, list) and len(found) == 1 else found
    if words := ONE_OF.fullmatch(said):
        known = [word.strip(" '") for word in words[1].split(",")]
        wrong = re.match("'(.*?)'", said)
        assert wrong
        return f"is {quoted(wrong[1])}: {nearest(wrong[1], known)}"
    return f"is {show(given)}: {_lower(said)}" if isinstance(given, str | int | float) else f"is wrong: {_lower(said)}"


def _example(context: Any) -> str:
    """The first one of the command's help."""
    examples = Text.from_markup(context.command.epilog or "").plain.strip() if context else ""
    example = re.sub(r"^Examples?\s+", "", examples).partition(" · ")[0]
    return f"For example: {example}\n" if example.startswith("ems") else ""


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence
