"""The registry's tables with each column, from `ems.databases.tables`; what a column means stands in `meanings`."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column, Table

from ems.databases import tables
from scripts.reference.markdown import code
from scripts.reference.markdown import table as markdown_table
from scripts.reference.meanings import COLUMNS, TABLES

INTRODUCTION = """# Tables

The lab's database has these tables, which you can read without EMS: see [Results](../results.md). All times are UTC; in
SQLite they are text such as `2026-01-31 12:00:00.000000`.

Results tables stand beside them, each with `experiment_id`, `point` and `row` as its key and the job's columns. A
results table can hold rows of several experiments, so select by `experiment_id`. BigQuery has one more table and one
more column: see [BigQuery](../databases/bigquery.md). DynamoDB keeps the same records as items: see
[DynamoDB](../databases/dynamodb.md).
"""
TYPES = {
    "UtcTime": "time",
    "Remark": "text",
    "Text": "text",
    "Boolean": "boolean",
    "Integer": "whole number",
    "BigInteger": "whole number",
    "Double": "double",
    "Date": "date",
    "JSON": "JSON",
}


def page() -> str:
    return "\n".join([INTRODUCTION, *(part for found in tables.metadata.tables.values() for part in section(found))])


def section(found: Table) -> Iterator[str]:
    yield f"## {found.name}\n"
    yield TABLES[found.name] + "\n"
    yield markdown_table(["column", "type", "meaning"], map(row, found.columns))


def row(column: Column[object]) -> list[str]:
    return [code(column.name), kind(column), meaning(column)]


def kind(column: Column[object]) -> str:
    name = TYPES[type(column.type).__name__] + (" or null" if column.nullable else "")
    return f"{name}, key" if column.primary_key else name


def meaning(column: Column[object]) -> str:
    """What it means, and the column of another table that it refers to."""
    text = COLUMNS.get(f"{column.table.name}.{column.name}") or COLUMNS[column.name]
    targets = ", ".join(code(key.target_fullname) for key in sorted(column.foreign_keys, key=str))
    return f"{text} Refers to {targets}." if targets else text
