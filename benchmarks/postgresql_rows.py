"""Rows of 12 and of 1,000 doubles a second that the PostgreSQL database stores, against binary COPY by the driver.

python benchmarks/postgresql_rows.py URL [ROWS]     # works in a schema `ems_benchmark`, which it drops at the end
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import psycopg
from sqlite_rows import ROUNDS, batches, claimed

from ems.databases import connect
from ems.spool.batch import Batch

KEYS = 'experiment_id text COLLATE "C" NOT NULL, point bigint NOT NULL, row bigint NOT NULL'


@contextmanager
def schema(url: str) -> Iterator[str]:
    """The URL for an empty schema of our own."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA ems_benchmark")
        try:
            yield f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dems_benchmark"
        finally:
            connection.execute("DROP SCHEMA ems_benchmark CASCADE")


def raw(url: str, work: list[Batch]) -> float:
    """Seconds for the same rows by COPY, a transaction for each batch, into a table with the same primary key."""
    names = [column.name for column in work[0].columns]
    doubles = ", ".join(f"{name} double precision" for name in names)
    with psycopg.connect(url) as connection:
        connection.execute(f"CREATE TABLE raw_rows ({KEYS}, {doubles}, PRIMARY KEY (experiment_id, point, row))")
        connection.commit()
        start = time.perf_counter()
        for batch in work:
            columns = [column.values for column in batch.columns]
            with connection.cursor().copy("COPY raw_rows FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(["text", "int8", "int8", *repeat("float8", len(names))])
                for row in zip(repeat("e" * 36), batch.points, batch.rows, *columns, strict=False):
                    copy.write_row(row)
            connection.commit()
        return time.perf_counter() - start


def stored(url: str, work: list[Batch]) -> float:
    with closing(connect(url, Path())) as database:
        claim = claimed(database)
        database.store(claim, first_row(work))
        start = time.perf_counter()
        for batch in work:
            database.store(claim, batch)
        return time.perf_counter() - start


def first_row(work: list[Batch]) -> Batch:
    """Makes the table, as `raw` does before it looks at the clock."""
    columns = tuple(replace(column, values=column.values[:1]) for column in work[0].columns)
    return Batch(work[0].points[:1], work[0].rows[:1], columns)


def compare(url: str, rows: int, doubles: int) -> None:
    work = batches(rows, doubles)
    ratios = []
    for _ in range(ROUNDS):
        with schema(url) as own:
            raw_s, store_s = raw(own, work), stored(own, work)
        ratios.append(raw_s / store_s)
        sys.stdout.write(f"raw {rows / raw_s:,.0f} rows/s, store() {rows / store_s:,.0f} rows/s: {ratios[-1]:.2f}\n")
    sys.stdout.write(f"{doubles} doubles: ratio, middle of {ROUNDS}: {sorted(ratios)[ROUNDS // 2]:.2f} (aim: 0.75)\n")


if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 300_000
    compare(sys.argv[1], wanted, 12)
    compare(sys.argv[1], wanted // 50, 1000)
