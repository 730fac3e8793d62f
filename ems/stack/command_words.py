"""The words of a job's command, checked: placeholders of a grid's parameters, variables that no shell expands. Pure.

All is read from the raw data, so that other faults do not hide what is found here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ems.base.errors import Fault
from ems.base.messages import nearest, show
from ems.stack.keys import Location, dotted
from ems.sweep import placeholders
from ems.sweep.placeholders import RESULTS

SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "fish", "csh", "tcsh", "make", "ssh"])  # which read the rest
_FOLDER = re.compile(r"\$(EMS_RESULTS_DIR\b|\{EMS_RESULTS_DIR\b[^}]*\})")
_JOB: Location = ("ems:experiment", "job")
Word = tuple[Location, str]


def faults(data: object) -> Iterator[Fault]:
    """What is wrong with the command of an experiment's `data`, and with its `env:` where each point fills that in."""
    experiment = _mapping(data)
    job = _mapping(experiment.get("job"))
    if "command" not in job or "function" in job:
        return
    words = list(_words(job["command"]))
    unexpanded = list(_unexpanded(words))
    yield from unexpanded
    if "sweep" in job and not unexpanded:
        yield from _of_grid(job, words, _mapping(experiment.get("env")))


def _words(command: object) -> Iterator[Word]:
    """Each with where it stands."""
    if isinstance(command, str):
        with suppress(ValueError):  # told elsewhere
            yield from (((*_JOB, "command"), word) for word in shlex.split(command))
    elif isinstance(command, Sequence):
        yield from (((*_JOB, "command", place), word) for place, word in enumerate(command) if isinstance(word, str))


def _unexpanded(words: Sequence[Word]) -> Iterator[Fault]:
    for where, word in words:
        if word.rpartition("/")[2] in SHELLS:
            return
        if found := _FOLDER.search(word):
            problem = f"has {found[0]}, which no shell expands here: write {{results}} for the folder of the results"
            yield Fault(dotted(where), problem)


@dataclass(frozen=True)
class _Known:
    """The names of a job: of all points, of constants, and of how many grids each parameter is one."""

    constants: Mapping[str, object]
    axes: Mapping[str, int]
    grids: int
    stays: bool  # one program has all points, line by line

    def problem(self, name: str) -> str | None:
        """What is wrong with a placeholder of that name."""
        if self.stays and (name == RESULTS or name in self.axes):
            return (
                f"has {{{name}}}, but with `protocol: lines` one program computes many points: "
                "it reads the parameters from standard input, and answers on standard output"
            )
        if name in self.constants:
            return self._of_constant(name, self.constants[name])
        known = [*self.axes, *self.constants, RESULTS]
        if name not in known:
            return f"has {{{name}}}, which is not a parameter of the sweep: {nearest(name, known)}"
        if name != RESULTS and self.axes[name] < self.grids:
            return f"has {{{name}}}, which {self.grids - self.axes[name]} of the {self.grids} grids lack: add it there"
        return None

    def _of_constant(self, name: str, value: object) -> str | None:
        if value is None or isinstance(value, list | tuple | dict):
            allowed = "text, a number or a boolean; the file $EMS_PARAMETERS has all parameters"
            return f"has {{{name}}}, which is {show(value)}: allowed is {allowed}"
        return None


def _of_grid(job: Mapping[Any, Any], words: Sequence[Word], env: Mapping[Any, Any]) -> Iterator[Fault]:
    axes = [set(_axes(grid)) for grid in _grids(job["sweep"])]
    known = _Known(
        constants=_mapping(job.get("parameters")),
        axes={name: sum(name in grid for grid in axes) for name in sorted(set().union(*axes))},
        grids=len(axes),
        stays=job.get("protocol") == "lines",
    )
    yield from _names(known)
    values = [(("ems:experiment", "env", str(name)), text) for name, text in env.items() if isinstance(text, str)]
    for where, word in [*words, *values]:
        yield from _in_word(where, word, known)


def _names(known: _Known) -> Iterator[Fault]:
    if RESULTS in known.axes:
        problem = f"is {RESULTS}, as the placeholder of the folder for results: allowed is another name"
        yield Fault(dotted((*_JOB, "sweep", RESULTS)), problem)
    lower = {name.lower(): name for name in known.axes}
    for name in map(str, known.constants):
        if name.lower() in lower:
            problem = f"is a parameter of the sweep too, as {lower[name.lower()]}: allowed is each name once"
            yield Fault(dotted((*_JOB, "parameters", name)), problem)


def _in_word(where: Location, word: str, known: _Known) -> Iterator[Fault]:
    try:
        names = placeholders.names(word)
    except ValueError as error:
        yield Fault(dotted(where), str(error))
        return
    for name in dict.fromkeys(names):
        if problem := known.problem(name):
            yield Fault(dotted(where), problem)


def _grids(sweep: object) -> Collection[Any]:
    return sweep if isinstance(sweep, list | tuple) else [sweep]


def _axes(grid: object) -> Iterator[str]:
    for name, form in _mapping(grid).items():
        if name != "zip":
            yield str(name)
            continue
        for group in form if isinstance(form, list | tuple) else [form]:
            yield from map(str, _mapping(group))


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, dict) else {}
