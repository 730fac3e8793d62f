"""The lab's database in a dataset of Google BigQuery: `bigquery://project/dataset`.

Who comes in is what Google's own client finds: application-default credentials, or nobody at an emulator that
BIGQUERY_EMULATOR_HOST names. Each statement is a job of about a second that bills 10 MB or more of each table it
reads, so beats come once a minute and rows every few minutes.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from google.cloud.bigquery import ScalarQueryParameter
from sqlalchemy import Text, literal, select, union_all

from ems.base.errors import DatabaseUnavailable
from ems.databases import Claim, Experiment, Outcome, PointState, tables
from ems.databases.bigquery import results as bigquery_results
from ems.databases.bigquery import snippets as bigquery_snippets
from ems.databases.bigquery.backend import BigqueryBackend
from ems.databases.bigquery.service import Address, Contended, Service
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.snippets import Language
from ems.databases.sql import SqlDatabase
from ems.databases.sql_rows import SqlRows

WAIT_S, FIRST_PAUSE_S = 60.0, 0.5
MOST_TRIES = 30  # of a change that others get ahead of
GRANTS = """-- Then for each person, once:
--   GRANT `roles/bigquery.dataEditor` ON SCHEMA {dataset} TO "user:NAME@EXAMPLE.ORG";  -- or dataViewer, to read alone
--   gcloud projects add-iam-policy-binding {project} --member=user:NAME@EXAMPLE.ORG --role=roles/bigquery.jobUser
"""
P = ParamSpec("P")
T = TypeVar("T")


def connect(url: str, root: Path) -> BigqueryDatabase:  # noqa: ARG001  (only a file needs the lab's folder)
    """The database at `url`; UserError if that names no project and dataset, or has unknown options."""
    return BigqueryDatabase(url)


def again(call: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Decide anew when somebody changed what the decision was made on."""

    def repeated(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(MOST_TRIES):
            try:
                return call(self, *args, **kwargs)
            except Contended:
                time.sleep(random.uniform(0, 0.1) * min(number + 1, 10))
        raise DatabaseUnavailable(f"Others keep changing the same rows of {self._backend.name}.", "Try again.")

    return repeated


class BigqueryRows(SqlRows):
    """The rows of experiments; a change is decided anew where somebody else came first."""

    change = again(SqlRows.change)


class BigqueryDatabase(SqlDatabase):
    """`wait_s`: how long one call waits for a service that is busy or away."""

    least_beat_s = 60.0
    pairs_at_once = 50_000
    cells_at_once = bigquery_results.CELLS
    _backend: BigqueryBackend

    def __init__(
        self,
        url: str,
        wait_s: float = WAIT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        self._bigquery = Service(Address.of(url), wait_s, first_pause_s)
        backend = BigqueryBackend(url, self._bigquery, migrations)
        super().__init__(backend, BigqueryRows(backend))

    def snippet(self, language: Language, experiment: Experiment, root: Path) -> str:
        of, address = experiment.registration, self._bigquery.address
        return bigquery_snippets.snippet(language, of.stack, of.results_table, address.project, address.dataset, root)

    def store_pause_s(self, running_s: float) -> float:
        """At first short, then longer: a day takes some 600 load jobs."""
        return min(max(1.0, running_s / 20), 180.0)

    store = again(SqlDatabase.store)
    put_results = again(SqlDatabase.put_results)
    _copy = again(SqlDatabase._copy)

    def release(self, claim: Claim, outcome: Outcome) -> None:
        with self._bigquery.mapped():
            if self._bigquery.describe(claim.results_table):
                self._bigquery.query(*bigquery_results.cleaning(claim.results_table, claim))
        super().release(claim, outcome)

    def missing(self, experimenter: str, project: str, funding: str) -> list[tuple[str, str, list[str]]]:
        """All three in one query."""
        wanted = {"experimenter": experimenter, "project": project, "funding": funding}
        asked = [tables.experimenter, tables.project, tables.funding]
        each = [select(literal(table.name, Text).label("kind"), table.c.id) for table in asked]
        known: dict[str, list[str]] = {kind: [] for kind in wanted}
        with self._backend.reading() as connection:
            for kind, id in connection.execute(union_all(*each)):
                known[kind].append(id)
        return [(kind, id, sorted(known[kind])) for kind, id in wanted.items() if id not in known[kind]]

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        with self._backend.reading() as connection:
            row = self._with_results(connection, experiment_id)
            table = row["results_table"] if row["rows_stored"] else None
            asked = [
                ScalarQueryParameter("id", "STRING", experiment_id),
                ScalarQueryParameter("wanted", "INT64", row["wanted_attempt"]),
            ]
            for state, first, last in self._bigquery.query(bigquery_results.points_sql(table), asked):
                yield state, range(first, last + 1)

    def setup_script(self) -> str:
        address = self._bigquery.address
        where = f" OPTIONS (location = '{address.location}')" if address.location else ""
        dataset = f"`{address.project}`.{address.dataset}"
        statements = [f"CREATE SCHEMA IF NOT EXISTS {dataset}{where}", *self._backend.definitions()]
        grants = GRANTS.format(dataset=dataset, project=address.project)
        return "".join(f"{statement};\n\n" for statement in statements) + grants
