"""The lab's database in DynamoDB: `dynamodb://REGION/PREFIX`, the tables `PREFIX-registry` and `PREFIX-results`.

Credentials and endpoint come by AWS's own ways: AWS_PROFILE, ~/.aws, a role of the machine; AWS_ENDPOINT_URL_DYNAMODB
for a server of one's own. The service has no clock to ask: this machine's is taken, corrected where the times in the
service's answers prove it wrong.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ems.base.errors import UserError
from ems.databases import (
    Checkup,
    Claim,
    Condition,
    Experiment,
    Long,
    Origin,
    Output,
    PointState,
    R,
    Record,
    Registration,
    Round,
    outputs,
)
from ems.databases.dynamodb import columns as dynamodb_columns
from ems.databases.dynamodb.copying import Copying
from ems.databases.dynamodb.lab import Lab
from ems.databases.dynamodb.registry import Registry
from ems.databases.dynamodb.results import Results
from ems.databases.dynamodb.runs import DynamodbRows
from ems.databases.dynamodb.service import Service
from ems.databases.dynamodb.setup import Setup
from ems.databases.points import chunks
from ems.databases.runs import Runs
from ems.spool.batch import Batch, Mark

VERSION = 2
URL = re.compile(r"dynamodb://(?P<region>[a-z0-9-]+)/(?P<prefix>[A-Za-z0-9_.-]{1,200})/?")
ALLOWED = (
    "Allowed: dynamodb://REGION/PREFIX, as dynamodb://eu-central-1/mylab; letters, digits, `_`, `-`, `.` in PREFIX."
)


def connect(url: str, root: Path) -> DynamodbDatabase:  # noqa: ARG001  (only a file needs the lab's folder)
    """The database at `url`; UserError if that is not a DynamoDB URL."""
    parts = URL.fullmatch(url)
    if not parts:
        shown = "ems:database" if "@" in url else f"ems:database is {url!r}, which"  # it may hold a secret
        raise UserError(f"{shown} is no DynamoDB URL. Keys belong into ~/.aws, never into a URL.", ALLOWED)
    return DynamodbDatabase(Service(parts["region"], parts["prefix"]))


class DynamodbDatabase(Runs):
    """Hands each call to the part that serves it. `version`: of the tables, as this EMS needs them."""

    outputs_at_once = 90  # of at most 100 items in a transaction
    _rows: DynamodbRows

    def __init__(self, service: Service, version: int = VERSION) -> None:
        self._service = service
        registry = Registry(service, version)
        self._setup = Setup(registry)
        self._lab = Lab(registry)
        self._results = Results(registry, self.pairs_at_once)
        self._rows = DynamodbRows(registry, self._results.clean)
        self._copying = Copying(registry, self._results)

    def close(self) -> None:
        self._service.close()

    # Tables

    def create(self) -> None:
        self._setup.create()

    def setup(self) -> None:
        self._setup.create()

    def setup_script(self) -> str:
        return self._setup.script()

    def check(self) -> Checkup:
        return self._setup.check()

    # The lab and its experiments

    def upsert(self, record: Record) -> None:
        self._lab.upsert(record)

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        return self._lab.missing(experimenter, project, funding)

    def record(self, kind: type[R], id: str) -> R | None:
        return self._lab.record(kind, id)

    def experiments(self, stack: str | None = None) -> list[Experiment]:
        return self._rows.of_stack(stack)

    def newest(self, stacks: Collection[str] | None = None, also: Collection[Long] = ()) -> list[Experiment]:
        return self._rows.newest(stacks, also)

    def reusable(self, registration: Registration) -> list[Experiment]:
        return self._rows.reusable(registration)

    # Points

    def store(self, claim: Claim, batch: Batch, attempt: int | None = None) -> None:
        self._results.store(claim, batch, attempt)

    def check_columns(self, table: str, batch: Batch) -> None:
        dynamodb_columns.check(self._service, table, batch)

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        return self._results.points(experiment_id)

    def rounds(self, experiment_id: str) -> list[Round]:
        return self._rows.rounds(experiment_id)

    def outputs(self, experiment_id: str) -> Iterator[Output]:
        return self._rows.outputs(experiment_id)

    def failures(self, experiment_id: str, last: int | None = None) -> Iterator[Mark]:
        return self._results.failures(experiment_id, last)

    def copy_points(self, claim: Claim, source: str, pairs: Iterable[tuple[int, int]]) -> int:
        """Outputs first, as what was interrupted is repeated: the points that are copied have theirs."""
        return sum(self._copied(claim, source, to) for to in chunks(pairs, self.pairs_at_once))

    def _copied(self, claim: Claim, source: str, to: Mapping[int, int]) -> int:
        if found := list(self._rows.outputs(source, (min(to), max(to)))):
            states = [points for state, points in self.points(source) if state in {"stored", "empty"}]
            there = {point: to[point] for point in to if any(point in points for points in states)}
            self.put_outputs(claim, outputs.moved(found, there))
        return self._results.copy_points(claim, source, to.items())

    def origins(self, experiment_id: str) -> Iterator[Origin]:
        return self._results.origins(experiment_id)

    def results(
        self,
        experiment_id: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
        chunk_rows: int = 10_000,
    ) -> Iterator[Batch]:
        return self._results.read(experiment_id, columns, where, chunk_rows)

    # Copies of a whole lab

    def rows(self, table: str) -> Iterator[dict[str, Any]]:
        return self._copying.rows(table)

    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        self._copying.put_rows(table, rows)

    def put_results(self, results: Sequence[tuple[str, Batch]]) -> None:
        self._copying.put_results(results)
