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
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq
from google.cloud.bigquery import LoadJobConfig, SchemaField
from sqlite_rows import ROUNDS, claimed

from ems.databases.bigquery import BigqueryDatabase
from ems.node.spool import Batch, Column

BATCH_ROWS = {12: 150_000, 1000: 5_000}  # by the number of doubles in a row: about what an agent gathers


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
    """Seconds for the same rows by one load job for each batch, made into Parquet as the client does it."""
    service = database._bigquery
    service.make_dataset()
    keys = [SchemaField("experiment_id", "STRING"), SchemaField("point", "INT64"), SchemaField("row", "INT64")]
    schema = [*keys, *(SchemaField(column.name, "FLOAT64") for column in work[0].columns)]
    config = LoadJobConfig(source_format="PARQUET", schema=schema, clustering_fields=[key.name for key in keys])
    start = time.perf_counter()
    for batch in work:
        columns = [["e" * 36] * len(batch), batch.points, batch.rows, *(column.values for column in batch.columns)]
        file = BytesIO()
        pq.write_table(pa.table(list(map(pa.array, columns)), [field.name for field in schema]), file)
        size = file.tell()
        file.seek(0)
        service.client.load_table_from_file(file, service.table("raw_rows"), size=size, job_config=config).result()
    return time.perf_counter() - start


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
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 300_000
    compare(sys.argv[1], wanted, 12)
    compare(sys.argv[1], wanted // 50, 1000)
