"""Code that reads rows from an SQLite file without EMS."""

from __future__ import annotations

from pathlib import Path
from string import Template

from ems.databases import snippets
from ems.databases.snippets import Language

PYTHON = Template('''\
import sqlite3
from contextlib import closing

import pandas

query = """
$query
"""
with closing(sqlite3.connect($uri, uri=True)) as connection:
    frame = pandas.read_sql_query(query, connection, dtype_backend="numpy_nullable")
    # or: frame = polars.read_database(query, connection)
print(frame)
''')
R = Template("""\
connection <- DBI::dbConnect(RSQLite::SQLite(), $path, flags = RSQLite::SQLITE_RO)
rows <- DBI::dbGetQuery(connection, r"(
$query
)")
DBI::dbDisconnect(connection)
print(head(rows))
""")
SQL = Template("""\
-- sqlite3 -readonly -box $path
$query;
""")


def snippet(language: Language, stack: str, table: str, file: Path, root: Path) -> str:
    """Code for the rows of the experiment that `stack` holds; MATLAB reads them through `ems results`."""
    if language == "matlab":
        return snippets.through_csv(language, stack, root)
    template = {"python": PYTHON, "r": R, "sql": SQL}[language]
    path = file.absolute()
    uri = snippets.text(f"{path.as_uri()}?mode=ro")
    return template.substitute(query=snippets.newest(table, stack), path=snippets.text(path), uri=uri)
