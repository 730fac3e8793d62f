"""A process that proposes one round: a plain Python that calls the proposer in its main thread, as a script would.

It is started while the round before is computed, imports the code, and waits for the question; it answers once, so that
nothing is left from one round to the next but rows. Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ems.base.errors import EmsError
from ems.node.driver.functions import imported, told
from ems.node.driver.points import Order, enter, read_order
from ems.node.driver.proposal import told_of
from ems.node.driver.rows import BadResult
from ems.node.driver.stored import Rows, StoredRound
from ems.node.driver.worker import end_with
from ems.sweep import seeds

SEEDS = 0x70726F70  # the root of the seeds of rounds: those of sweeps have 0, unless they name another one
BOOT = """\
import sys
sys.path[0], *arguments = sys.argv[1:]
del sys.argv[1:]
from ems.node.driver.propose import serve
serve(arguments[0], *map(int, arguments[1:]))
"""


def serve(order_file: str, questions: int, answers: int, driver: int) -> None:
    """Answer one question, the path of a JSON file, in JSON. `driver`: a pipe that closes when the driver ends."""
    os.setpgid(0, 0)
    for descriptor in (questions, answers, driver):
        os.set_inheritable(descriptor, False)
    end_with(driver)
    try:
        order = read_order(order_file)
        enter(order)
        function: Callable[..., Any] | EmsError = imported("propose", str(order.propose))
    except EmsError as error:
        function = error
    with os.fdopen(questions, encoding="utf-8") as asked:
        question = asked.readline().rstrip("\n")
    if not question:
        return  # there are no further rounds
    answer = _answer(function, json.loads(Path(question).read_text(encoding="utf-8")))
    if "error" not in answer and (problem := _misfit(answer, order)):
        answer = {"error": problem}
    with os.fdopen(answers, "w", encoding="utf-8") as answered:
        answered.write(json.dumps(answer))
    sys.exit()


def _answer(function: Callable[..., Any] | EmsError, question: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(function, EmsError):
        return {"error": str(function)}
    rows = Rows(Path(question["folder"]), [StoredRound(*each) for each in question["rounds"]], question["types"])
    number = question["round"]
    try:
        result = function(rows, **_accepted(function, {"round": number, "seed": seeds.seed(SEEDS, number)}))
        return told_of(result)
    except BadResult as error:
        return {"error": str(error)}
    except BaseException as error:  # SystemExit too
        return {"error": told(error, own_frames=1)}


def _misfit(answer: Mapping[str, Any], order: Order) -> str:
    """What the job's function does not take of the points that were returned; "" if nothing, or that is not known."""
    try:
        signature = inspect.signature(imported("function", order.function)) if order.function else None
    except (EmsError, TypeError, ValueError):  # which its workers tell, or what is not written in Python
        return ""
    given = {"context": None} if order.setup else {}
    for names in {frozenset(_names(each)) for each in (*answer.get("points", ()), *answer.get("grids", ()))}:
        try:
            if signature:
                signature.bind(**given, **dict.fromkeys(names))
        except TypeError as error:
            said = ", ".join(sorted(names))
            return f"propose returned points of {said}, which {order.function} does not take: {error}."
    return ""


def _names(item: Mapping[str, Any]) -> Iterator[str]:
    """Of the parameters of a point, or of a grid."""
    for name, value in item.items():
        if name != "zip":
            yield name
        else:
            yield from (zipped for group in value for zipped in group)


def _accepted(function: Callable[..., Any], given: Mapping[str, int]) -> dict[str, int]:
    """Those that the function has parameters for."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of what is not written in Python
        return {}
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(given)
    named = {each.name for each in parameters if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}}
    return {name: value for name, value in given.items() if name in named}
