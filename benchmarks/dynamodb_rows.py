"""Rows of 12 and of 1,000 doubles a second that the DynamoDB database stores, against batch writes by the driver.

python benchmarks/dynamodb_rows.py URL [ROWS]     # AWS_ENDPOINT_URL_DYNAMODB, or an account where tables may be made

Both write the same items with the same client, as many calls at once; raw ones are spread over as many partitions. The
tables, whose names begin with PREFIX, stay: delete them when done.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlite_rows import ROUNDS, batches, claimed

from ems.databases import connect
from ems.databases.dynamodb.database import URL
from ems.databases.dynamodb.items import SHARDS
from ems.databases.dynamodb.service import AT_ONCE_CALLS, CONFIG, MOST_WRITES, session
from ems.spool.batch import Batch


def items(batch: Batch, run: int) -> list[dict[str, Any]]:
    names = [column.name for column in batch.columns]
    return [
        {
            "experiment_id": {"S": f"{'r' * 36}-{run}/{(point + row) % SHARDS}"},
            "rowid": {"S": f"{point:019d} {row:019d} {run:010d}"},
            "point": {"N": str(point)},
            "row": {"N": str(row)},
            **{name: {"N": repr(value)} for name, value in zip(names, values, strict=True)},
        }
        for point, row, *values in zip(batch.points, batch.rows, *(c.values for c in batch.columns), strict=True)
    ]


def raw(url: str, work: list[Batch], run: int) -> float:
    """Seconds for the same rows, a batch after the other."""
    parts = URL.fullmatch(url)
    assert parts
    client = session().create_client("dynamodb", parts["region"], config=CONFIG)
    table = f"{parts['prefix']}-results"

    def write(part: list[dict[str, Any]]) -> None:
        undone = {table: [{"PutRequest": {"Item": item}} for item in part]}
        while undone:
            undone = client.batch_write_item(RequestItems=undone).get("UnprocessedItems")

    start = time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE_CALLS) as pool:
        for batch in work:
            found = items(batch, run)
            list(pool.map(write, [found[at : at + MOST_WRITES] for at in range(0, len(found), MOST_WRITES)]))
    return time.perf_counter() - start


def stored(url: str, work: list[Batch]) -> float:
    with closing(connect(url, Path())) as database:
        claim = claimed(database)
        start = time.perf_counter()
        for batch in work:
            database.store(claim, batch)
        return time.perf_counter() - start


def compare(url: str, rows: int, doubles: int) -> None:
    work = batches(rows, doubles)
    ratios = []
    stored(f"{url}-warm-{doubles}", work[:1])
    for run in range(ROUNDS):
        own = f"{url}-{doubles}-{run}"
        store_s, raw_s = stored(own, work), raw(own, work, run)
        ratios.append(raw_s / store_s)
        sys.stdout.write(f"raw {rows / raw_s:,.0f} rows/s, store() {rows / store_s:,.0f} rows/s: {ratios[-1]:.2f}\n")
    sys.stdout.write(f"{doubles} doubles: ratio, middle of {ROUNDS}: {sorted(ratios)[ROUNDS // 2]:.2f} (aim: 0.90)\n")


if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    compare(sys.argv[1], wanted, 12)
    compare(sys.argv[1], wanted // 20, 1000)
