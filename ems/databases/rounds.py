"""Rounds of points that were proposed: as rows of the table `proposed`, and as part of an experiment's sweep. No I/O.

The JSON of a round's grids lies in parts, each of which every service takes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

from ems.base.errors import DatabaseError
from ems.databases import Claim, Database, Registration, Round
from ems.databases.states import Row, Values
from ems.sweep import Sweep

PART_CHARACTERS = 200_000
MOST_CHARACTERS = 3_000_000  # of a round: DynamoDB writes 4 MB in a transaction
SAME = ("first_point", "points", "digest", "attempt")


def rows_of(row: Row, claim: Claim, wanted: Round) -> list[Values]:
    """The rows of `proposed` that record a round; `row`: the experiment's. DatabaseError if it is too large."""
    text = json.dumps(wanted.grids, separators=(",", ":"))
    if len(text) > MOST_CHARACTERS:
        raise DatabaseError(
            f"round {wanted.number} of experiment {row['id']} takes {len(text):,} characters of JSON; "
            f"allowed are {MOST_CHARACTERS:,}.",
            "Propose a grid, as {n: {range: [1, 1000000, 1]}}, or fewer points at a time.",
        )
    key = {"experiment_id": row["id"], "round": wanted.number}
    said = {"first_point": wanted.first_point, "points": wanted.points, "digest": wanted.digest}
    parts = (text[start : start + PART_CHARACTERS] for start in range(0, len(text), PART_CHARACTERS))
    return [
        {**key, "part": part, **said, "grids": piece, "attempt": claim.attempt, "at": row["now"]}
        for part, piece in enumerate(parts)
    ]


def rounds_of(rows: Iterable[Mapping[Any, Any]]) -> list[Round]:
    """The rounds in rows of one experiment, in order of rounds and parts."""
    found = []
    for number, parts in groupby(rows, key=itemgetter("round")):
        first, *others = parts
        grids = json.loads("".join(part["grids"] for part in (first, *others)))
        found.append(Round(number, grids=tuple(grids), **{name: first[name] for name in SAME}))
    return found


def first_grids(registration: Registration) -> list[dict[str, Any]]:
    """The grids of the stack file, as they were recorded; none where all rounds are proposed."""
    return list(_said(registration, "job").get("sweep", []))


def _said(registration: Registration, key: str) -> dict[str, Any]:
    """What its spec says, where that was read."""
    found: dict[str, Any] = json.loads(registration.spec or "{}").get(key, {})
    return found


def is_proposing(registration: Registration) -> bool:
    """Whether results decide what further points its sweep has."""
    return bool(_said(registration, "job").get("propose"))


def are_raised(before: Registration, wanted: Registration) -> bool:
    """Whether `wanted` allows more points or rounds."""
    if not is_proposing(before):
        return False
    old, new = (_said(each, "limits") for each in (before, wanted))
    limits = ((old.get(name), new.get(name)) for name in ("max_points", "max_rounds"))
    return any(was is not None and (now is None or now > was) for was, now in limits)


def sweep_of(database: Database, registration: Registration) -> Sweep:
    """The experiment's sweep with all rounds that were proposed by now."""
    sweep = Sweep.of(first_grids(registration))
    if is_proposing(registration):
        for each in database.rounds(registration.id):
            sweep = sweep.extended(each.grids)
    return sweep
