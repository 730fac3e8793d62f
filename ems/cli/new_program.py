"""A command line that exists, as the job of a stack file, with what of it may become a grid."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ems.base.errors import UserError
from ems.cli.new_function import FILL_IN
from ems.cli.yaml_text import Value, listed, word
from ems.stack.fields import AXIS, VARIABLE
from ems.stack.hints import PLACEHOLDER
from ems.stack.scalars import scalar
from ems.sweep.placeholders import RESULTS

SHELL = re.compile(r"[|&;<>`]|\$[\w({]|(?<!\S)[*~]")
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
AWK = re.compile(r"(.*/)?[gm]?awk")  # whose own programs stand in braces, as {print}
SCRIPT = re.compile(r"[^-].*\.(py|R|r|jl|m|sh|pl|rb|js|ipynb)")


@dataclass(frozen=True)
class Program:
    """`words`: what runs; `env`: variables that stood before it; `swept`: words with placeholders; `axes`: values.

    `blanks`: the placeholders that were typed, whose values are to be filled in.
    """

    words: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    swept: tuple[str, ...] = ()
    axes: dict[str, Value] = field(default_factory=dict)
    blanks: tuple[str, ...] = ()

    def lines(self, indent: int) -> list[str]:
        """Of `job:` in a stack file, with a grid as comments."""
        space = " " * indent
        if self.blanks:
            blanks = [f"{space}  {name}:  {FILL_IN}: its values, as [1, 2, 3]" for name in self.blanks]
            return [f"{space}command: {listed(self.words)}", f"{space}sweep:", *blanks]
        if not self.axes:
            return [f"{space}command: {listed(self.words)}"]
        values = [f"{space}#   {name}: [{word(value)}]" for name, value in self.axes.items()]
        return [
            f"{space}command: {listed(self.words)}",
            f"{space}# A grid instead of the line above, with a process for each combination of values:",
            f"{space}# command: {listed(self.swept)}",
            f"{space}# sweep:",
            *values,
        ]


def read(line: str, root: Path, here: Path) -> Program:
    """The program of a command line, as one types it in the folder `here` of the lab in `root`.

    UserError: it cannot be split, or its script is not where the job would look for it.
    """
    if SHELL.search(_unquoted(line)):
        return _over_blanks(("bash", "-c", line), {}) or Program(("bash", "-c", line))
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UserError(f"The command {line!r} cannot be split: {error}.", "Quote it as a shell would.") from error
    env = dict(_assignments(words))
    words = [_below(word, root) for word in words[len(env) :]]
    if not words:
        raise UserError("The command has no program.", 'Name one: --command "python train.py --lr 0.1"')
    _refuse_missing(words, root, here)
    if program := _over_blanks(words, env):
        return program
    swept, axes = _swept(words)
    return Program(tuple(words), env, swept, axes)


def _over_blanks(words: Sequence[str], env: dict[str, str]) -> Program | None:
    """The program over a grid of the placeholders that stand in its words, as `{k}`; None where there are none."""
    texts = [*words, *env.values()] if not AWK.fullmatch(words[0]) else []
    found = dict.fromkeys(name for text in texts for name in PLACEHOLDER.findall(text) if _name(name, {}))
    if not found:
        return None
    filled = [_braced(text, found) for text in words]
    return Program(tuple(filled), {name: _braced(text, found) for name, text in env.items()}, blanks=tuple(found))


def _unquoted(line: str) -> str:
    """Without what stands in quotes, which no shell would read."""
    return re.sub(r"'[^']*'|\"[^\"`$]*\"|\\.", "_", line)


def _below(word: str, root: Path) -> str:
    """A file of the lab from the lab's folder: a job runs the commit's files, wherever the lab lies."""
    path = Path(word)
    if path.is_absolute() and path.is_relative_to(root) and path.exists():
        return path.relative_to(root).as_posix()
    return word


def _assignments(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for each in words:
        found = ASSIGNMENT.fullmatch(each)
        if not found:
            return
        try:
            yield str(VARIABLE.check(found[1])), found[2]
        except ValueError as error:
            raise UserError(f"The variable before the program {error}.") from error


def _refuse_missing(words: Sequence[str], root: Path, here: Path) -> None:
    """Scripts are named from the lab's folder, where jobs start."""
    for each in words:
        if not SCRIPT.fullmatch(each) and not each.startswith("./"):
            continue
        if each.startswith("/") or (root / each).exists():
            return
        if (here / each).is_file() and (here / each).resolve().is_relative_to(root):
            right = posixpath.normpath((here / each).resolve().relative_to(root).as_posix())
            raise UserError(f"{each} is not in the lab's folder, where jobs start.", f"Name it from there: {right}")
        hint = "Write it first, or correct the command: programs are named from the lab's folder."
        raise UserError(f"{root / each} is not there.", hint)


def _swept(words: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Value]]:
    """The words with a placeholder for each option's value, and these values by name."""
    axes: dict[str, Value] = {}
    made: list[str] = []
    option = ""
    for place, each in enumerate(words):
        name, equals, value = each.partition("=")
        if place == 1 and each in {"-m", "-c"}:  # a module of Python, or its text
            made.append(each)
        elif place and each.startswith("-") and equals and _is_value(value):
            made.append(f"{_braced(name)}={_placeholder(name, value, axes)}")
            option = ""
        elif place and each.startswith("-") and not NUMBER.fullmatch(each):
            made.append(_braced(each))
            option = "" if equals else each
        elif place and (option or NUMBER.fullmatch(each)) and _is_value(each):
            made.append(_placeholder(option or f"arg{place}", each, axes))
            option = ""
        else:
            made.append(_braced(each))
            option = ""
    return tuple(made), axes


def _is_value(text: str) -> bool:
    """Whether a value is worth a grid: not a file, whose name is the program's own matter."""
    return bool(text) and (("/" not in text and "." not in text) or bool(NUMBER.fullmatch(text)))


def _placeholder(option: str, value: str, axes: dict[str, Value]) -> str:
    name = _name(option, axes)
    if not name:
        return _braced(value)
    typed = scalar(value)
    is_number = NUMBER.fullmatch(value) and not re.match(r"[-+]?0\d", value)
    axes[name] = typed if is_number and isinstance(typed, int | float) else value
    return f"{{{name}}}"


def _name(option: str, taken: dict[str, Value]) -> str:
    """Of an axis, after an option's; "" if it cannot be one."""
    name = re.sub(r"\W+", "_", option.lstrip("-"))
    try:
        AXIS.check(name)
    except ValueError:
        return ""
    return "" if name in taken else name


def _braced(text: str, names: Collection[str] = ()) -> str:
    """The text in a command over a grid: braces are doubled, but for those of `{results}` and of these placeholders."""
    kept = "|".join(re.escape(f"{{{name}}}") for name in (RESULTS, *names))
    pieces = re.split(rf"((?<![{{$])(?:{kept})(?!\}}))", text)
    return "".join(piece if place % 2 else _doubled(piece) for place, piece in enumerate(pieces))


def _doubled(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
