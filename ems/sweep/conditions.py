"""Conditions on a point's parameters, as text: `m > n and not method == "exact"`.

    names        of the sweep's parameters
    constants    numbers, text in quotes, true and false
    operators    + - * / of numbers; < <= > >= == !=, also in a row: 1 < m <= n; and, or, not; parentheses

Nothing else is taken: no call, no attribute, no index, no power. So a condition can do nothing but compare.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ems.base.messages import nearest, plain
from ems.sweep.axes import ScalarType

MOST_CHARACTERS = 1000
KINDS: dict[ScalarType, str] = {"int64": "number", "float64": "number", "text": "text", "bool": "truth"}
SAID = {"number": "a number", "text": "text", "truth": "true or false"}
ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
COMPARISONS: dict[type[ast.cmpop], str] = {
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="},
    **{ast.Eq: "==", ast.NotEq: "!="},
}
ALLOWED = "parameters, numbers, text in quotes, true, false, + - * /, < <= > >= == !=, and, or, not"
EXAMPLE = 'allowed is a condition, as "m > n"'


@dataclass(frozen=True)
class Condition:
    """`holds` takes the values of `names`, in their order. `tree`: JSON, equal for conditions that say the same."""

    names: tuple[str, ...]
    holds: Callable[..., bool]
    tree: Any


def parse(text: str, types: Mapping[str, ScalarType]) -> Condition:
    """The condition in `text` on parameters of these types. ValueError says what is wrong with it."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"has {len(text):,} characters: allowed are up to {MOST_CHARACTERS:,}")
    try:
        node = ast.parse(text.strip(), mode="eval").body
        tree, kind = _read(node, types)
    except SyntaxError as error:
        raise ValueError(f"cannot be read ({error.msg}): {EXAMPLE}") from error
    except (RecursionError, MemoryError) as error:
        raise ValueError(f"has parts within parts, too many to be read: {EXAMPLE}") from error
    if kind != "truth":
        raise ValueError(f"is {SAID[kind]}, which says of no point whether it holds: {EXAMPLE}")
    names = tuple(sorted(_names(tree)))
    if not names:
        raise ValueError(f"has no parameter: {EXAMPLE}")
    return Condition(names, _function(names, tree), tree)


Read = tuple[Any, str]  # a tree, and of which of SAID its value is


def _read(node: ast.AST, types: Mapping[str, ScalarType]) -> Read:
    read = {
        ast.Name: _name,
        ast.Constant: _constant,
        ast.UnaryOp: _unary,
        ast.BinOp: _arithmetic,
        ast.Compare: _comparison,
        ast.BoolOp: _both,
    }.get(type(node))
    if read is None:
        raise ValueError(f"has {_said(node)}: allowed are {ALLOWED}")
    return read(node, types)


def _name(node: Any, types: Mapping[str, ScalarType]) -> Read:
    if node.id in types:
        return ["name", node.id], KINDS[types[node.id]]
    if node.id in {"true", "false"}:
        return node.id == "true", "truth"
    raise ValueError(f"has {plain(node.id)}, which is not a parameter of the sweep: {nearest(node.id, types)}")


def _constant(node: Any, types: Mapping[str, ScalarType]) -> Read:  # noqa: ARG001
    value = node.value
    if isinstance(value, bool):
        return value, "truth"
    if isinstance(value, str):
        return ["text", value], "text"
    if isinstance(value, int) and value.bit_length() <= 64:
        return value, "number"
    if isinstance(value, float) and math.isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value, "number"
    raise ValueError(f"has {_said(node)}: allowed are {ALLOWED}")


def _unary(node: Any, types: Mapping[str, ScalarType]) -> Read:
    tree, kind = _read(node.operand, types)
    if isinstance(node.op, ast.Not):
        return ["not", _expect(tree, kind, "truth", "not")], "truth"
    if isinstance(node.op, (ast.USub, ast.UAdd)):
        sign = "-" if isinstance(node.op, ast.USub) else "+"
        return [sign, 0, _expect(tree, kind, "number", sign)], "number"
    raise ValueError(f"has {_said(node)}: allowed are {ALLOWED}")


def _arithmetic(node: Any, types: Mapping[str, ScalarType]) -> Read:
    sign = ARITHMETIC.get(type(node.op))
    if sign is None:
        raise ValueError(f"has {_said(node)}: allowed are {ALLOWED}")
    parts = [_expect(*_read(part, types), "number", sign) for part in (node.left, node.right)]
    return [sign, *parts], "number"


def _comparison(node: Any, types: Mapping[str, ScalarType]) -> Read:
    """Such as a < b <= c, which is a < b and b <= c."""
    parts = [_read(part, types) for part in (node.left, *node.comparators)]
    compared = [
        _compared(parts[at], COMPARISONS.get(type(operator), ""), parts[at + 1]) for at, operator in enumerate(node.ops)
    ]
    return compared[0] if len(compared) == 1 else ["and", *compared], "truth"


def _compared(one: Read, sign: str, other: Read) -> Any:
    if not sign:
        raise ValueError(f"has `in` or `is`: allowed are {ALLOWED}")
    if one[1] != other[1]:
        raise ValueError(f"compares {SAID[one[1]]} with {SAID[other[1]]}: allowed are two of one type")
    if one[1] == "truth" and sign not in {"==", "!="}:
        raise ValueError(f"has {sign} between true and false: allowed there are == and !=")
    return [sign, one[0], other[0]]


def _both(node: Any, types: Mapping[str, ScalarType]) -> Read:
    word = "and" if isinstance(node.op, ast.And) else "or"
    return [word, *(_expect(*_read(part, types), "truth", word) for part in node.values)], "truth"


def _expect(tree: Any, kind: str, wanted: str, word: str) -> Any:
    if kind != wanted:
        raise ValueError(f"has {SAID[kind]} beside {word}: allowed there is {SAID[wanted]}")
    return tree


def _said(node: ast.AST) -> str:
    return f"`{ast.unparse(node)[:60]}`"


def _names(tree: Any) -> set[str]:
    if not isinstance(tree, list):
        return set()
    if tree[0] in {"name", "text"}:
        return {tree[1]} if tree[0] == "name" else set()
    return set().union(*map(_names, tree[1:]))


def _function(names: Sequence[str], tree: Any) -> Callable[..., bool]:
    """Python's own code for a tree, which has nothing but the parameters, constants and operators above."""
    source = f"lambda {', '.join(names)}: {_source(tree)}"
    found: Callable[..., bool] = eval(source, {"__builtins__": {}})
    return found


def _source(tree: Any) -> str:
    if not isinstance(tree, list):
        return repr(tree)
    word, *parts = tree
    if word in {"name", "text"}:
        return parts[0] if word == "name" else repr(parts[0])
    if word == "not":
        return f"(not {_source(parts[0])})"
    return f"({f' {word} '.join(map(_source, parts))})"
