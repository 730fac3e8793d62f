"""Files that jobs leave, as rows of the table `output`. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from ems.databases import Claim, Output
from ems.databases.states import Values

NAME_BYTES = 900  # of a name: DynamoDB has 1,024 bytes for what sorts the items
NAMES = tuple(field.name for field in fields(Output))


def rows_of(claim: Claim, found: Sequence[Output]) -> list[Values]:
    """The rows that record these files for the run that holds the claim; of the same point and name, the last one."""
    newest = {(each.point, each.name): replace(each, attempt=claim.attempt) for each in found}
    return [{"experiment_id": claim.experiment_id, **asdict(each)} for each in newest.values()]


def outputs_of(rows: Iterable[Mapping[Any, Any]]) -> Iterator[Output]:
    """The files in rows of one experiment that come by point, those of a point in order of names."""
    found = (Output(**{name: row[name] for name in NAMES}) for row in rows)
    for _, same in groupby(found, key=attrgetter("point")):
        yield from sorted(same, key=lambda each: each.name.encode())


def moved(found: Iterable[Output], to: Mapping[int, int]) -> list[Output]:
    """Of the files, those of points that were copied, as the points here have them."""
    return [replace(each, point=to[each.point]) for each in found if each.point in to]
