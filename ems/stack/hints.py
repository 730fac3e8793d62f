"""What is allowed in a stack file and seldom meant: hints, which refuse nothing. Pure."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Mapping
from datetime import date

from ems.base.errors import Fault
from ems.base.messages import show
from ems.stack import sweep_choice
from ems.stack.checks import NUMBER
from ems.stack.keys import dotted
from ems.stack.models import CommandJob, CommandSweepJob, ExperimentSpec, LabSpec, Spec, SweepJob
from ems.stack.scalars import scalar

PLACEHOLDER = re.compile(r"(?<![{$])\{(?!results\})([A-Za-z]\w*)\}(?!\})")
TRUTHS = re.compile("y|yes|n|no|on|off", re.IGNORECASE)
_SQL = """
all and any as asc between by case check column constraint create cross default delete desc distinct drop else end
exists from full group having in index inner insert into is join left like limit not null offset on or order outer
primary references right row select set table then to union unique update user using values view when where with
"""
SQL = frozenset(_SQL.split())


def hints(described: Spec, written: Mapping[str, str], lab: LabSpec | None, today: date) -> Iterator[Fault]:
    """Hints, without file and line. `written`: odd plain scalars as they stand there, by key."""
    yield from _scalar_hints(written)
    if isinstance(described, LabSpec):
        for name, person in described.experimenters.items():
            if person.email and not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s.]+", person.email):
                key = dotted(("ems:lab", "experimenters", name, "email"))
                yield Fault(key, f"is {show(person.email)}, which is not an e-mail address")
    if isinstance(described, ExperimentSpec):
        yield from _experiment_hints(described, lab, today)


def _scalar_hints(written: Mapping[str, str]) -> Iterator[Fault]:
    for key, text in written.items():
        if TRUTHS.fullmatch(text):
            yield Fault(key, f'is the text "{text}", not true or false: write true or false, or quote it')
        elif re.fullmatch("[-+]?0[0-7]+", text):
            how = "octal" if isinstance(value := scalar(text), int) else "decimal"  # which depends on its length
            yield Fault(key, f'is {text}, read as the {how} number {show(value)}: write that, or quote it: "{text}"')
        elif NUMBER.fullmatch(text) and math.isinf(float(text)):
            yield Fault(key, f"is the text {show(text)}, for no number is as large: quote it, if that is meant")
        elif NUMBER.fullmatch(text) and float(text) == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
            yield Fault(key, f"is {text}, read as 0, for no number is as small: write 0, or quote it")


def _experiment_hints(described: ExperimentSpec, lab: LabSpec | None, today: date) -> Iterator[Fault]:
    account = lab.funding.get(described.funding) if lab else None
    if account and account.expires and account.expires < today:
        yield Fault("ems:experiment.funding", f"is {show(described.funding)}, which expired on {account.expires}")
    if "paths" in described.code.model_fields_set and not described.code.paths:
        problem = "is empty, which is all files but EMS's own, as without it: name some, or leave it out"
        yield Fault("ems:experiment.code.paths", problem)
    if described.results.table in SQL:
        table = described.results.table
        yield Fault("ems:experiment.results.table", f"is {show(table)}, a word of SQL, which every query has to quote")
    if "PATH" in described.env:
        yield Fault("ems:experiment.env.PATH", "replaces the path of the environment's own programs, such as python")
    if isinstance(described.job, SweepJob | CommandSweepJob):
        yield from sweep_choice.idle(described.job.model_dump(mode="json"))
    if isinstance(described.job, CommandJob):
        for word in described.job.command:
            if re.search(r"\w(>>?|<|\||;)\w|\w;$", word) and shlex.quote(word) != word and " " not in word:
                problem = f"has {show(word)}, which no shell reads: the program gets it as it stands"
                yield Fault("ems:experiment.job.command", problem)
            for name in PLACEHOLDER.findall(word) if " " not in word else ():
                problem = f"has {{{name}}}, which the program gets as it stands: allowed are {{results}} and, with a"
                yield Fault("ems:experiment.job.command", f"{problem} `sweep`, the names of its parameters")
