"""Code that reads rows from PostgreSQL without EMS; passwords come from ~/.pgpass, as everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from ems.databases import snippets
from ems.databases.snippets import Language, text

PYTHON = Template('''\
import pandas
import psycopg

query = """
$query
"""
with psycopg.connect($url) as connection:
    cursor = connection.execute(query)
    rows = cursor.fetchall()
    columns = {column.name: [row[i] for row in rows] for i, column in enumerate(cursor.description)}
    frame = pandas.DataFrame({name: pandas.array(values) for name, values in columns.items()})
    # or: frame = polars.read_database(query, connection)
print(frame)
''')
R = Template("""\
driver <- if (requireNamespace("RPostgres", quietly = TRUE)) RPostgres::Postgres() else RPostgreSQL::PostgreSQL()
connection <- DBI::dbConnect(driver, $settings)
rows <- DBI::dbGetQuery(connection, r"(
$query
)")
DBI::dbDisconnect(connection)
print(head(rows))
""")
SQL = Template("""\
-- psql $url
$query;
""")


def snippet(language: Language, stack: str, table: str, url: str, settings: Mapping[str, Any], root: Path) -> str:
    """Code for the rows of the experiment that `stack` holds; MATLAB reads them through `ems results`."""
    if language == "matlab":
        return snippets.through_csv(language, stack, root)
    template = {"python": PYTHON, "r": R, "sql": SQL}[language]
    arguments = ", ".join(f"{name} = {text(value)}" for name, value in settings.items())
    return template.substitute(query=snippets.newest(table, stack), url=text(url), settings=arguments)
