"""How the columns of a results table lie in BigQuery, under names that it takes.

A column whose name BigQuery refuses has another one there: each character that it does not take is written as its
hexadecimal number between underscores (`a.b` → `a_2e_b`), `column_` stands before a beginning that BigQuery keeps for
itself, and long names are cut. Each column's description is the name that the job gave.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.cloud.bigquery import SchemaField, Table

from ems.base.errors import DatabaseError
from ems.databases.columns import check_own
from ems.spool.batch import ColumnType

DECLARED: dict[ColumnType, str] = {"int64": "INT64", "float64": "FLOAT64", "text": "STRING", "bool": "BOOL"}
TYPE_OF: dict[str, ColumnType] = {
    **{declared: type for type, declared in DECLARED.items()},
    "INTEGER": "int64",
    "FLOAT": "float64",
    "BOOLEAN": "bool",
}
BATCH = "batch"  # the column with the number of the load job: a row counts once `loaded_batch` has that
KEY_FIELDS = (
    SchemaField("experiment_id", "STRING", mode="REQUIRED"),
    SchemaField("point", "INT64", mode="REQUIRED"),
    SchemaField("row", "INT64", mode="REQUIRED"),
    SchemaField(BATCH, "INT64", mode="REQUIRED"),
)
OWN_NAMES = tuple(field.name for field in KEY_FIELDS)
MOST_COLUMNS = 10_000 - len(KEY_FIELDS)
NAME_CHARACTERS = 300
KEPT_BEGINNINGS = ("_table_", "_file_", "_partition", "_row_timestamp", "__root__", "_colidentifier", "_change_")
TAKEN = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd", "Nl", "No"})  # Unicode's letters, marks, digits


@dataclass(frozen=True)
class Stored:
    """A column of the table: its name there, and its type."""

    field: str
    type: ColumnType

    def described(self, name: str) -> SchemaField:
        """The field as BigQuery declares it; its description is `name`, which the job gave."""
        return SchemaField(self.field, DECLARED[self.type], description=name)


Layout = dict[str, Stored]
"""By the names that jobs give."""


def layout_of(table: Table) -> Layout:
    """DatabaseError if the table is not one of EMS."""
    check_own(table.table_id, OWN_NAMES, {field.name: field.field_type for field in table.schema}, TYPE_OF)
    rest = table.schema[len(KEY_FIELDS) :]
    return {field.description or field.name: Stored(field.name, TYPE_OF[field.field_type]) for field in rest}


def new_fields(layout: Layout, added: Mapping[str, ColumnType]) -> list[SchemaField]:
    """Fields for columns that are to be added, under names that BigQuery takes and the table does not have yet."""
    used = {stored.field.casefold() for stored in layout.values()} | set(OWN_NAMES)
    fields = []
    for name, type in added.items():
        field = _unused(_field_name(name), used)
        used.add(field.casefold())
        fields.append(Stored(field, type).described(name))
    return fields


def _field_name(name: str) -> str:
    written = "".join(letter if _is_taken(letter) else f"_{ord(letter):x}_" for letter in name)
    if written.lower().startswith(KEPT_BEGINNINGS) or not (written[0].isalpha() or written[0] == "_"):
        written = f"column_{written}"
    return written[:NAME_CHARACTERS]


def _is_taken(letter: str) -> bool:
    return letter == "_" or unicodedata.category(letter) in TAKEN


def _unused(name: str, used: Iterable[str]) -> str:
    field, number = name, 1
    while field.casefold() in used:
        number += 1
        ending = f"_{number}"
        field = name[: NAME_CHARACTERS - len(ending)] + ending
    return field


def check_width(table: str, width: int) -> None:
    """DatabaseError for more columns than BigQuery allows; `width`: of the table without its keys."""
    if width > MOST_COLUMNS:
        raise DatabaseError(
            f"results table {table!r} would have {width} columns; BigQuery allows {MOST_COLUMNS}.",
            "Write long vectors as rows (one per element), or use another database.",
        )
