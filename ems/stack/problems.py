"""What pydantic found wrong with a stack file, as faults: the key, the value, what is allowed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import ValidationError

from ems.base.errors import Fault
from ems.base.messages import nearest, plain, show
from ems.stack.keys import Location, Problem, Problems, dotted
from ems.stack.models import COMMAND_SWEEP, JOB_KEYS, JOBS, ExperimentSpec, LockSpec
from ems.stack.strict import Strict

KINDS: Mapping[tuple[str], Mapping[str, type[Strict]]] = {("job",): JOBS, ("environment",): {"lock": LockSpec}}
"""The keys of an experiment whose value may be of several kinds, with those that are mappings."""


def faults(where: Location, model: type[Strict], error: ValidationError, also: Collection[str] = ()) -> Iterator[Fault]:
    """A fault for each thing that pydantic found in a `model` that stands at `where`, without file and line.

    `also`: keys beside those of the model that are allowed there.
    """
    details = error.errors(include_url=False)
    misspelt = _misspelt(details)
    for detail in details:
        if detail["type"] == "missing" and detail["loc"] in misspelt:
            continue  # told where it is misspelt
        tagged = tuple(part for part in detail["loc"] if part != "[key]")
        has_kinds = model is ExperimentSpec and tagged[:1] in KINDS  # which pydantic names there
        location = (*tagged[:1], *tagged[2:]) if has_kinds else tagged
        for inside, problem in _problems(model, tagged, detail, also):
            yield Fault(dotted((*where, *location, *inside)), problem)


def _misspelt(details: Sequence[Any]) -> set[Location]:
    """Where required keys are missing that another key of the same mapping is meant for."""
    found: set[Location] = set()
    missing = [detail["loc"] for detail in details if detail["type"] == "missing"]
    for *above, given in (detail["loc"] for detail in details if detail["type"] == "extra_forbidden"):
        there = [loc[-1] for loc in missing if list(loc[:-1]) == above]
        found.update((*above, name) for name in get_close_matches(str(given), there, n=1))
    return found


def _problems(model: type[Strict], location: Location, detail: Any, also: Collection[str]) -> Iterable[Problem]:
    if detail["type"] == "union_tag_not_found":
        return [((), _no_job(detail["input"]))]
    error = detail.get("ctx", {}).get("error")
    return error.located if isinstance(error, Problems) else [((), _problem(model, location, detail, also))]


def _problem(model: type[Strict], location: Location, detail: Any, also: Collection[str]) -> str:
    value = detail["input"]
    match detail["type"]:
        case "value_error":
            return str(detail["ctx"]["error"])
        case "missing":
            return f"is missing: {_model_at(model, location[:-1]).model_fields[str(location[-1])].description}"
        case "extra_forbidden":
            here, key = _model_at(model, location[:-1]), str(location[-1])
            grid = JOBS[COMMAND_SWEEP] if here is JOBS["command"] else here  # for which sweep was meant
            known = [*grid.model_fields, *(also if len(location) == 1 else ())]
            return _of_another_job(here, key) or f"is not a key here: {nearest(key, known)}"
        case "tuple_type":
            return f"is {show(value)}: allowed is a list, as [a, b]"
        case "model_type":
            keys = ", ".join(_model_at(model, location).model_fields)
            return f"is {show(value)}: allowed is a mapping with the keys {keys}"
        case _:
            return f"is {show(value)}: allowed is a mapping, as {{name: …}}"


def _of_another_job(here: type[Strict], key: str) -> str:
    """What to do about a key that jobs of another kind have; "" if it is not one."""
    owners = [kind for kind, model in JOBS.items() if key in model.model_fields]
    if here not in JOBS.values() or not owners or key in JOB_KEYS:
        return ""
    if here is JOBS["command"] and COMMAND_SWEEP in owners:
        return "is for a command over a grid: add `sweep: {name: [1, 2]}`, or leave it out"
    whose = "a function over a grid" if owners == ["function"] else "a command"
    return f"is for {whose}: allowed is to leave it out"


def _no_job(value: object) -> str:
    allowed = "a mapping with exactly one of `command` (a program) and `function` (called over a grid, `sweep`)"
    if not isinstance(value, dict):
        return f"is {show(value)}: allowed is {allowed}"
    if "command" in value:
        return f"has both command and function: allowed is {allowed}"
    close = [(key, match[0]) for key in value if (match := get_close_matches(str(key), JOB_KEYS, n=1))]
    if close:
        return (
            f"has {plain(str(close[0][0]))}, which is not a key here: did you mean {close[0][1]}? allowed is {allowed}"
        )
    return f"has neither command nor function: allowed is {allowed}"


def _model_at(model: Any, location: Location) -> type[Strict]:
    """The type of what stands at `location`; on the way there are models, mappings of names and the kinds of jobs."""
    for part in location:
        if kinds := _kinds(model):
            model = kinds[str(part)]
            continue
        in_model = isinstance(model, type) and issubclass(model, Strict)
        model = model.model_fields[part].annotation if in_model else get_args(model)[1]
    found: type[Strict] = model
    return found


def _kinds(annotation: Any) -> Mapping[str, type[Strict]]:
    """The kinds of what such a key of an experiment has; none for another one."""
    found = (kinds for (key,), kinds in KINDS.items() if annotation == ExperimentSpec.model_fields[key].annotation)
    return next(found, {})
