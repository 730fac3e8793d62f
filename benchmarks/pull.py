"""Rows of 12 doubles a second that a laptop's SQLite gets from a server by SSH, against those that it stores by itself.

python -m benchmarks.pull [ROWS]     as root on Linux: it starts an sshd on loopback

Fetched, checked, stored, confirmed and removed there; what the agent there does to write them is not counted.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path

from benchmarks.sqlite_rows import batches, claimed
from ems.clusters import pull, shipping
from ems.clusters.site import Reached, Site
from ems.databases import connect
from ems.databases.states import ELSEWHERE_S
from ems.lab import Lab
from ems.node.environments.ready import CODE
from ems.node.mailbox.database import Mailbox
from ems.spool.batch import Batch
from ems.spool.gathering import joined
from tests.clusters.ssh_server import client, started

BATCHES_A_FILE = 10  # as agents gather them in about a second
DOUBLES = 12


def stored_here(folder: Path, work: list[Batch]) -> float:
    """Seconds for the same batches, stored as an agent beside the database does."""
    with closing(connect("sqlite:///own.db", folder)) as database:
        claim = claimed(database)
        start = time.perf_counter()
        for batch in work:
            database.store(claim, batch)
        return time.perf_counter() - start


def fetched(folder: Path, work: list[Batch]) -> float:
    """Seconds until all are here, and nothing is left there."""
    lab = Lab(folder, "lab", uuid.UUID(int=1), "sqlite:///far.db")
    with started() as server, closing(connect(lab.database_url, folder)) as database:
        os.environ |= client(server)
        id = claimed(database).experiment_id
        there = server.home / "ems/runs" / id
        there.mkdir(parents=True)
        shipping.zip_code(there / CODE)
        mailbox = Mailbox(there)
        _own(server.home / "ems", server.user)
        site = Site(Reached(server.name, unattended=True, is_here=False, work_dir="ems", environments_dir=""), "")
        fetching = pull.of(lab, id, site)
        assert fetching
        fetching.sync()
        claim = mailbox.claim(id, agent="a", lease_s=ELSEWHERE_S)
        assert claim
        for batch in work:
            mailbox.store(claim, batch)
        _own(server.home / "ems", server.user)
        start = time.perf_counter()
        while fetching.sync().batches_left:
            pass
        took_s = time.perf_counter() - start
        found = database.experiment(id)
        assert found and found.rows_stored == sum(map(len, work)), found
    return took_s


def _own(folder: Path, user: str) -> None:
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, user)


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    small = batches(rows, DOUBLES)
    work = [joined(small[start : start + BATCHES_A_FILE]) for start in range(0, len(small), BATCHES_A_FILE)]
    with tempfile.TemporaryDirectory() as folder:
        own_s, far_s = stored_here(Path(folder), work), fetched(Path(folder), work)
    print(json.dumps({"rows": rows, "own": round(rows / own_s), "fetched": round(rows / far_s)}))
    print(f"{own_s / far_s:.2f} of the laptop's own rate")


if __name__ == "__main__":
    main()
