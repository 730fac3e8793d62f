"""local-bigquery made quicker for many small statements: run by the emulator's own Python, not by the tests.

As it comes, each change makes a new version of a lake of Parquet files, for the sake of time travel, which EMS does not
use; here tables lie in plain DuckDB files. To see what a table is like it lists all columns of all tables; here it asks
for the one. It keeps each answer for ever; here the newest ones. Of two that make the same table at once, one
would fail; here they wait, as do changes of columns.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque

import duckdb
from local_bigquery import cli
from local_bigquery.catalog import tables
from local_bigquery.engine import database, results
from local_bigquery.jobs import query

MOST_ANSWERS = 2_000  # some are read page by page, while others ask
ONE = (
    "(SELECT $1 AS database_name, $2 AS schema_name, $3 AS table_name, name AS column_name, "
    "NOT \"notnull\" AS is_nullable FROM pragma_table_info('{}'))"
)

list_objects, fetch_any, run, materialise = database.objects, database.fetch, query._run, results.materialise
update_table = tables.update
one_at_a_time = threading.RLock()
answers = deque()


def attach(connection, project):
    file = database.settings.data_dir / f"{project}.ducklake"
    connection.execute(f"ATTACH IF NOT EXISTS '{file}' AS {database.quote(project)}")
    database._attached.add(project)


def objects(project, dataset, table=None):
    if table is None:
        return list_objects(project, dataset)
    try:
        database.execute(f"SELECT NULL FROM {database.quote(project, dataset, table)} LIMIT 0")
    except duckdb.CatalogException:
        return []
    return [(table, "TABLE", 0)]


def fetch(sql, values=None):
    if "duckdb_columns()" not in sql:
        return fetch_any(sql, values)
    own = ONE.format(database.quote(*values[:3]).replace("'", "''"))
    numbered = sql.replace("duckdb_columns()", own)
    for number in range(1, len(values) + 1):
        numbered = numbered.replace("?", f"${number}", 1)
    try:
        return fetch_any(numbered, values)
    except duckdb.CatalogException:  # no such table, or one that is just being changed
        with one_at_a_time:
            return fetch_any(sql, values)


def run_alone(cursor, tree, *rest):
    with one_at_a_time if isinstance(tree, query.DDL) else contextlib.nullcontext():
        return run(cursor, tree, *rest)


def update_alone(*words):
    with one_at_a_time:
        return update_table(*words)


def materialise_some(cursor, sql, name, *rest, **options):
    if "_results" in name:
        answers.append(name)
        if len(answers) > MOST_ANSWERS:
            database.execute(f"DROP TABLE IF EXISTS {answers.popleft()}")
    return materialise(cursor, sql, name, *rest, **options)


if __name__ == "__main__":
    database._attach = attach
    database.objects = objects
    database.fetch = fetch
    database.projects = lambda: sorted(database._attached)
    query._run = run_alone
    tables.update = update_alone
    results.materialise = materialise_some
    cli.main()
