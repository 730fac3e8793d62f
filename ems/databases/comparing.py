"""Whether two databases have the same lab: table by table, and the results of each experiment, by digests of values.

Digests do not depend on how a service orders a table's rows, or cuts results into batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ems.base.errors import DatabaseError
from ems.base.messages import Say, some
from ems.databases import Database
from ems.databases.tables import metadata
from ems.spool.batch import Batch, Column

TABLES = tuple(table.name for table in metadata.sorted_tables if table.name != "schema_version")


@dataclass(frozen=True)
class Compared:
    """What both databases have of a table, or of an experiment's results, once all is copied.

    `stack`: the experiment's; "" for a table.
    """

    name: str
    rows: int
    rows_there: int
    same: bool
    stack: str = ""


def compare(source: Database, target: Database, say: Say) -> list[Compared]:
    """Table by table and experiment by experiment; all rows are read."""
    found = []
    for table in TABLES:
        say(f"comparing table {table}")
        found.append(_compared(table, digested(source.rows(table)), digested(target.rows(table))))
    experiments = source.experiments()
    for number, experiment in enumerate(experiments, 1):
        stack = experiment.registration.stack
        say(f"comparing results of experiment {number:,} of {len(experiments):,}, {stack}")
        here, there = (digested_results(database.results(experiment.id)) for database in (source, target))
        found.append(_compared(f"results of {stack}, {experiment.id[:8]}", here, there, stack))
    return found


def _compared(name: str, here: tuple[int, Any], there: tuple[int, Any], stack: str = "") -> Compared:
    return Compared(name, here[0], there[0], here == there, stack)


def digested(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many rows of a table there are, and a digest of them all in whatever order."""
    count = digest = 0
    for row in rows:
        text = repr(sorted((name, _plain(value)) for name, value in row.items() if not _is_null(value)))
        digest ^= int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
        count += 1
    return count, digest


def _plain(value: Any) -> Any:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def _is_null(value: Any) -> bool:
    """NaN too: SQLite has none."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def digested_results(batches: Iterable[Batch]) -> tuple[int, dict[str, str]]:
    """How many rows of results there are, and a digest of each column that has a value, in the order of the rows."""
    count, valued = 0, {"point", "row"}
    digests: dict[str, Any] = {}
    for batch in batches:
        keys = Column("point", "int64", batch.points), Column("row", "int64", batch.rows)
        for column in (*keys, *batch.columns):
            digest = digests.setdefault(column.name, hashlib.sha256())
            digest.update(_text(column).encode("utf-8", "surrogatepass"))
            if column.name not in valued and not all(map(_is_null, column.values)):
                valued.add(column.name)
        count += len(batch)
    return count, {name: digest.hexdigest() for name, digest in digests.items() if name in valued}


def _text(column: Column) -> str:
    """All values exactly, those that are null as `None`, each with a comma behind it."""
    text = repr(list(column.values))[1:-1] + ", "
    return text.replace("nan", "None") if column.type == "float64" else text


def raise_if_different(found: Iterable[Compared]) -> None:
    """DatabaseError that names what differs, if anything does."""
    different = [each.name for each in found if not each.same]
    if different:
        raise DatabaseError(
            f"The copy differs in: {some(different)}.",
            "Was something run meanwhile? Copy again; the first database is as it was.",
        )
