"""Seconds that the BigQuery database takes to store rows of 12 and of 1,000 doubles, against Google's own client.

python benchmarks/bigquery_rows.py URL [ROWS]    # in a dataset of its own beside the URL's, which it deletes
"""

from __future__ import annotations

import sys
import time
import uuid
from array import array
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pandas as pd
from google.cloud.bigquery import LoadJobConfig, SchemaField
from sqlite_rows import ROUNDS, claimed

from ems.databases.bigquery.database import BigqueryDatabase
from ems.spool.batch import Batch, Column

BATCH_ROWS = {12: 500_000, 1000: 8_000}  # by the number of doubles in a row: what an agent gathers, 64 MB


def batches(rows: int, doubles: int) -> list[Batch]:
    size = min(BATCH_ROWS[doubles], rows)
    columns = tuple(Column(f"x{k}", "float64", array("d", (k + i / 7 for i in range(size)))) for k in range(doubles))
    ranges = [range(start, start + size) for start in range(0, rows, size)]
    return [Batch(array("q", points), array("q", bytes(8 * size)), columns, tuple(points)) for points in ranges]


@contextmanager
def dataset(url: str) -> Iterator[BigqueryDatabase]:
    with closing(BigqueryDatabase(f"{url}_{uuid.uuid4().hex[:8]}")) as database:
        try:
            yield database
        finally:
            service = database._bigquery
            service.client.delete_dataset(service.address.dataset, delete_contents=True, not_found_ok=True)


def raw(database: BigqueryDatabase, work: list[Batch]) -> float:
    """Seconds for the same rows by the client's own load of data frames, a load job for each."""
    service = database._bigquery
    service.make_dataset()
    keys = [SchemaField("experiment_id", "STRING"), SchemaField("point", "INT64"), SchemaField("row", "INT64")]
    schema = [*keys, *(SchemaField(column.name, "FLOAT64") for column in work[0].columns)]
    config = LoadJobConfig(schema=schema, clustering_fields=[key.name for key in keys])
    frames = [frame(batch) for batch in work]
    start = time.perf_counter()
    for each in frames:
        service.client.load_table_from_dataframe(each, service.table("raw_rows"), job_config=config).result()
    return time.perf_counter() - start


def frame(batch: Batch) -> pd.DataFrame:
    keys = {"experiment_id": ["e" * 36] * len(batch), "point": batch.points, "row": batch.rows}
    return pd.DataFrame(keys | {column.name: column.values for column in batch.columns})


def stored(database: BigqueryDatabase, work: list[Batch]) -> float:
    claim = claimed(database)
    start = time.perf_counter()
    for batch in work:
        database.store(claim, batch)
    return time.perf_counter() - start


def compare(url: str, rows: int, doubles: int) -> None:
    work = batches(rows, doubles)
    ratios = []
    for _ in range(ROUNDS):
        with dataset(url) as one, dataset(url) as other:
            raw_s, store_s = raw(one, work), stored(other, work)
        ratios.append(store_s / raw_s)
        sys.stdout.write(f"client {raw_s:.2f} s, store() {store_s:.2f} s in {len(work)} calls: {ratios[-1]:.2f}\n")
    sys.stdout.write(f"{doubles} doubles: ratio, middle of {ROUNDS}: {sorted(ratios)[ROUNDS // 2]:.2f} (aim: 1.30)\n")


if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    compare(sys.argv[1], wanted, 12)
    compare(sys.argv[1], wanted // 50, 1000)
