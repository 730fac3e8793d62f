"""A Python function that exists, as the job of a stack file: its parameters become the axes of the grid.

Its module is read, and never imported.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from ems.base.errors import UserError
from ems.base.messages import nearest
from ems.cli import new_roots
from ems.cli.yaml_text import Value, listed
from ems.stack.fields import AXIS, FUNCTION

FILL_IN = "# FILL IN"
CONTEXT = "context"  # the keyword by which a function is given what `setup` returns
EXAMPLES = {"int": "[1, 2, 3]", "float": "[0.1, 0.2]", "bool": "[false, true]", "str": "[a, b]"}


@dataclass(frozen=True)
class Axis:
    """A parameter. `values`: of its default, None where values are to be filled in; `remark`: what is said beside."""

    name: str
    values: tuple[Value, ...] | None
    remark: str = ""

    def line(self, indent: int) -> str:
        """Of the grid."""
        text = " " + listed(self.values) if self.values is not None else ""
        return f"{' ' * indent}{self.name}:{text}" + (f"  {self.remark}" if self.remark else "")


@dataclass(frozen=True)
class Called:
    """`name`: as module:function, which `file` has; `left_out`: parameters that no grid can have, with the reason."""

    name: str
    file: Path
    axes: tuple[Axis, ...]
    left_out: tuple[str, ...] = ()

    def lines(self, indent: int) -> list[str]:
        """Of `job:` in a stack file."""
        space = " " * indent
        kept = [f"{space}  # {each}" for each in self.left_out]
        return [
            f"{space}function: {self.name}",
            f"{space}sweep:",
            *(axis.line(indent + 2) for axis in self.axes),
            *kept,
        ]


def read(name: str, root: Path) -> Called:
    """The function that `name`, module:function, means in the lab in `root`.

    UserError: there is none, or it cannot be called with its parameters by name.
    """
    try:
        FUNCTION.check(name)
    except ValueError as error:
        raise UserError(f"--function {error}.") from error
    module, _, function = name.partition(":")
    file = _file(root, module)
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} is not Python: {error}.", "Correct it first.") from error
    found = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    top = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in found:
        raise UserError(f"{file} has no function {function!r}: {nearest(function, top)}.")
    if function not in top and not any(function in ast.unparse(node) for node in tree.body if isinstance(node, ast.If)):
        raise UserError(f"{function!r} in {file} is in a class or a function: allowed is one of the module itself.")
    return _called(name, file, found[function])


def _file(root: Path, module: str) -> Path:
    below = module.replace(".", "/")
    places = [root / folder for folder in ("", *new_roots.of(root))]
    files = [place / name for place in places for name in (f"{below}/__init__.py", f"{below}.py")]
    if found := next((file for file in files if file.is_file()), None):
        return found
    looked = " or ".join(str(place / f"{below}.py") for place in places)
    raise UserError(
        f"The module {module} is not there: {looked}.", "Name it from the lab's folder: --function MODULE:NAME"
    )


def _called(name: str, file: Path, function: ast.FunctionDef) -> Called:
    about = function.args
    if about.posonlyargs or about.vararg:
        raise UserError(f"{name} in {file}:{function.lineno} takes values by position alone.", "EMS calls it by names.")
    plain = [None] * (len(about.args) - len(about.defaults)) + list(about.defaults)
    parameters = [*zip(about.args, plain, strict=True), *zip(about.kwonlyargs, about.kw_defaults, strict=True)]
    if not parameters:
        raise UserError(f"{name} in {file}:{function.lineno} has no parameters, and a grid needs one.", "Give it one.")
    axes, left_out = [], []
    for parameter, default in parameters:
        axis = _axis(parameter, default)
        if isinstance(axis, Axis):
            axes.append(axis)
        else:
            left_out.append(axis)
    return Called(name, file, tuple(axes), tuple(left_out))


def _axis(parameter: ast.arg, default: ast.expr | None) -> Axis | str:
    kind = ast.unparse(parameter.annotation) if parameter.annotation else ""
    if parameter.arg == CONTEXT and default is None:
        return f"{CONTEXT} is what a function of its own returns: name that above, as setup: MODULE:NAME"
    try:
        AXIS.check(parameter.arg)
    except ValueError as error:
        if default is not None:
            return f"{parameter.arg} keeps its default {ast.unparse(default)}"
        raise UserError(f"The parameter {parameter.arg} {error}.", "Rename it, or give it a default.") from error
    if default is None:
        example = "{count: 10} for seeds" if parameter.arg.endswith("seed") else EXAMPLES.get(kind, "[1, 2, 3]")
        return Axis(parameter.arg, None, f"{FILL_IN}: {f'{kind}, ' if kind else ''}as {example}")
    value = _literal(default)
    if isinstance(value, str | bool | int | float):
        return Axis(parameter.arg, (value,))
    return f"{parameter.arg} keeps its default {ast.unparse(default)}"


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None
