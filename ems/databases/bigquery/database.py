"""The lab's database in a dataset of Google BigQuery: `bigquery://project/dataset`.

Who comes in is what Google's own client finds: application-default credentials, or nobody at an emulator that
BIGQUERY_EMULATOR_HOST names. Each statement is a job of about a second that bills 10 MB or more of each table it
reads, so beats come once a minute and rows every few minutes.

What is read is not locked. A change is one script: all of it in one transaction, with a last condition that the
experiment's row and its newest run still are what the decision was made on; the count of changed rows says so.
Rows of results are loaded before, straight into their table, and count once such a script has noted their batch.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from google.api_core.exceptions import NotFound
from google.cloud.bigquery import ScalarQueryParameter
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    literal,
    literal_column,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects import registry
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable

from ems.databases import MAY, Claim, Condition, Experiment, Outcome, PointState, tables
from ems.databases.bigquery import results as bigquery_results
from ems.databases.bigquery import snippets as bigquery_snippets
from ems.databases.bigquery.dialect import Dialect, Session, compiled, merge, script
from ems.databases.bigquery.results import GROWN, LOADED
from ems.databases.bigquery.service import Address, Contended, Service
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.snippets import Language
from ems.databases.sql_setup import SqlSetup
from ems.databases.tables import UtcTime, experiment, run
from ems.errors import DatabaseUnavailable
from ems.spool.batch import Batch

WAIT_S, FIRST_PAUSE_S = 60.0, 0.5
MOST_TRIES = 30  # of a change that others get ahead of
READ_FROM = ("state", "attempt", "wanted_attempt", "cancel_requested", "max_hours", "deadline_at", "results_table")
GRANTS = """-- Then for each person, once:
--   GRANT `roles/bigquery.dataEditor` ON SCHEMA {dataset} TO "user:NAME@EXAMPLE.ORG";  -- or dataViewer, to read alone
--   gcloud projects add-iam-policy-binding {project} --member=user:NAME@EXAMPLE.ORG --role=roles/bigquery.jobUser
"""
LOADED_BATCH = Table(
    LOADED,
    MetaData(),
    Column("experiment_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),
)
P = ParamSpec("P")
T = TypeVar("T")

registry.register("bigquery.ems", "ems.databases.bigquery.dialect", "Dialect")


def connect(url: str, root: Path) -> BigqueryDatabase:  # noqa: ARG001  (only a file needs the lab's folder)
    return BigqueryDatabase(url)


def again(call: Callable[Concatenate[Any, P], T]) -> Callable[Concatenate[Any, P], T]:
    """Decide anew when somebody changed what the decision was made on."""

    def repeated(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(MOST_TRIES):
            try:
                return call(self, *args, **kwargs)
            except Contended:
                time.sleep(random.uniform(0, 0.1) * min(number + 1, 10))
        raise DatabaseUnavailable(f"Others keep changing the same rows of {self._name}.", "Try again.")

    return repeated


class BigqueryDatabase(SqlSetup):
    """`wait_s`: how long one call waits for a service that is busy or away."""

    clock = func.current_timestamp(type_=UtcTime())
    dialect = Dialect(paramstyle="named")
    least_beat_s = 60.0
    pairs_at_once = 50_000
    cells_at_once = bigquery_results.CELLS

    def __init__(
        self,
        url: str,
        wait_s: float = WAIT_S,
        first_pause_s: float = FIRST_PAUSE_S,
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        super().__init__(url, migrations)
        self._bigquery = Service(Address.of(url), wait_s, first_pause_s)
        self._engine = self._make_engine()

    def _make_engine(self) -> Engine:
        return create_engine("bigquery+ems://", creator=lambda: Session(self._bigquery), poolclass=NullPool)

    def close(self) -> None:
        self._bigquery.close()

    def snippet(self, language: Language, experiment: Experiment, root: Path) -> str:
        of, address = experiment.registration, self._bigquery.address
        return bigquery_snippets.snippet(language, of.stack, of.results_table, address.project, address.dataset, root)

    def store_pause_s(self, running_s: float) -> float:
        """At first short, then longer: a day takes some 600 load jobs."""
        return min(max(1.0, running_s / 20), 180.0)

    # Transactions

    @contextmanager
    def _transaction(self, *, write: bool) -> Iterator[Connection]:  # noqa: ARG002
        with self._bigquery.mapped(), self._engine.begin() as connection:
            session = raw(connection)
            yield connection
            if session.row is not None and (session.values or session.changes):
                self._send(session, session.row)

    def _send(self, session: Session, row: Any) -> None:
        """All changes, or Contended and nothing changed."""
        values = session.values or {"state": row["state"]}
        guard = compiled(update(experiment).where(*_unchanged(row)).values(**values), self.dialect)
        if not session.changes:
            done = bool(self._bigquery.query(*guard).num_dml_affected_rows)
        else:
            changes = [*session.changes, guard] if session.is_batch else [guard, *session.changes]
            statements, parameters = script(changes)
            text = _storing(statements) if session.is_batch else _guarded(statements, session.is_beat)
            ((done,),) = [found.values() for found in self._bigquery.query(text, parameters)]
        session.values, session.changes = {}, []
        if not done:
            raise Contended(f"experiment {row['id']}")

    def _send_all(self, session: Session) -> None:
        """Changes that no experiment's row guards."""
        for change in session.changes:
            self._bigquery.query(*change)
        session.changes = []

    def _lock(self, connection: Connection, experiment_id: str) -> None:
        """Nothing is locked: `_send` looks whether all is as it was."""

    def _lock_schema(self, connection: Connection) -> None:
        """Each statement that makes tables can be repeated."""

    def _find(self, connection: Connection, experiment_id: str) -> Any:
        """What was changed before is sent first, as it can be read after that alone."""
        session = raw(connection)
        if session.row is not None and (session.values or session.changes):
            self._send(session, session.row)
        session.row = super()._find(connection, experiment_id)
        return session.row

    def _update(self, connection: Connection, experiment_id: str, **values: Any) -> None:  # noqa: ARG002
        raw(connection).values |= values

    def _update_run(self, connection: Connection, claim: Claim, **values: Any) -> None:
        raw(connection).is_beat = "state" not in values
        super()._update_run(connection, claim, **values)

    # Registry

    register = again(SqlSetup.register)
    reopen = again(SqlSetup.reopen)
    request_cancel = again(SqlSetup.request_cancel)
    set_provisioning = again(SqlSetup.set_provisioning)
    mark_destroyed = again(SqlSetup.mark_destroyed)
    claim = again(SqlSetup.claim)
    beat = again(SqlSetup.beat)
    describe = again(SqlSetup.describe)
    _release = again(SqlSetup.release)
    store = again(SqlSetup.store)
    put_results = again(SqlSetup.put_results)
    _copy = again(SqlSetup._copy)

    def release(self, claim: Claim, outcome: Outcome) -> None:
        with self._bigquery.mapped():
            if self._bigquery.describe(claim.results_table):
                self._bigquery.query(*bigquery_results.cleaning(claim.results_table, claim))
        self._release(claim, outcome)

    def _missing(self, connection: Connection, *ids: str) -> list[tuple[str, str, list[str]]]:
        """All three in one query."""
        asked = [tables.experimenter, tables.project, tables.funding]
        each = [select(literal(table.name, Text).label("kind"), table.c.id) for table in asked]
        known: dict[str, list[str]] = {table.name: [] for table in asked}
        for kind, id in connection.execute(union_all(*each)):
            known[kind].append(id)
        wanted = zip(known.items(), ids, strict=True)
        return [(kind, id, sorted(there)) for (kind, there), id in wanted if id not in there]

    def _put(self, connection: Connection, table: Table, values: dict[str, Any]) -> None:
        raw(connection).service.query(*merge(table, [values], ["id"], True, self.dialect))

    def _put_new(self, connection: Connection, table: Table, values: dict[str, Any]) -> bool:
        change = merge(table, [values], ["id"], False, self.dialect)
        return raw(connection).service.query(*change).num_dml_affected_rows == 1

    def put_rows(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        found, given = tables.metadata.tables[table], list(rows)
        keys = [column.name for column in found.primary_key]
        with self._writing() as connection:
            if given:
                raw(connection).service.query(*merge(found, given, keys, True, self.dialect))

    # Results

    def _has_table(self, connection: Connection, name: str) -> bool:  # noqa: ARG002
        return self._bigquery.describe(name) is not None

    def _store(self, connection: Connection, claim: Claim, batch: Batch) -> Any:
        """What is to be added to `rows_stored`: known when the script runs."""
        session, table, id = raw(connection), claim.results_table, claim.experiment_id
        layout = bigquery_results.make_ready(self._bigquery, table, batch)
        rows = bigquery_results.newest(batch)
        if len(rows):
            number = bigquery_results.load(self._bigquery, claim, layout, rows)
        else:
            number = bigquery_results.new_number(claim.attempt)
        session.is_batch = True
        session.changes.append(bigquery_results.unless_done(id, number))
        if batch.replaces:
            session.changes.append(bigquery_results.removal(table, id, batch.replaces))
        if not set(rows.points) <= set(batch.replaces):
            session.changes.append(bigquery_results.key_removal(table, id, number, rows.points))
        session.changes.append(bigquery_results.commitment(id, number, len(rows)))
        return literal_column(GROWN)

    def _stored_points(self, connection: Connection, row: Any) -> Iterator[int]:
        """Not asked for: `points` reads rows and marks by one query, so from one snapshot."""
        raise NotImplementedError

    def points(self, experiment_id: str) -> Iterator[tuple[PointState, range]]:
        with self._reading() as connection:
            row = self._kept(connection, self._row(connection, experiment_id))
            table = row["results_table"] if row["rows_stored"] else None
            asked = [
                ScalarQueryParameter("id", "STRING", experiment_id),
                ScalarQueryParameter("wanted", "INT64", row["wanted_attempt"]),
            ]
            for state, first, last in self._bigquery.query(bigquery_results.points_sql(table), asked):
                yield state, range(first, last + 1)

    def _rows_of(self, connection: Connection, row: Any, points: Sequence[int]) -> Iterator[Batch]:  # noqa: ARG002
        return bigquery_results.rows_of(self._bigquery, row["results_table"], row["id"], points)

    def results(
        self,
        experiment_id: str,
        columns: Sequence[str] | None = None,
        where: Sequence[Condition] = (),
        chunk_rows: int = 10_000,
    ) -> Iterator[Batch]:
        with self._reading() as connection:
            table = self._kept(connection, self._row(connection, experiment_id))["results_table"]
            yield from bigquery_results.read(self._bigquery, table, experiment_id, columns, where, chunk_rows)

    # Tables

    def create(self) -> None:
        with self._transaction(write=True) as connection:
            found = self._found_version(connection)
            if found is None:
                self._bigquery.make_dataset()
                self._bigquery.query(";\n".join(self._definitions()))
            else:
                self._migrate(connection, found)
                self._send_all(raw(connection))

    def _definitions(self) -> list[str]:
        every = [*tables.metadata.sorted_tables, LOADED_BATCH]
        made = [CreateTable(table, if_not_exists=True) for table in every]
        version = (
            f"MERGE schema_version USING (SELECT 1) AS new ON TRUE "
            f"WHEN NOT MATCHED THEN INSERT (version) VALUES ({self._version})"
        )
        return [*(str(table.compile(dialect=self.dialect)).strip() for table in made), version]

    def _found_version(self, connection: Connection) -> int | None:
        try:
            version: int | None = connection.execute(select(func.max(tables.schema_version.c.version))).scalar_one()
        except NotFound:
            return None
        return version

    def setup_script(self) -> str:
        address = self._bigquery.address
        where = f" OPTIONS (location = '{address.location}')" if address.location else ""
        dataset = f"`{address.project}`.{address.dataset}"
        statements = [f"CREATE SCHEMA IF NOT EXISTS {dataset}{where}", *self._definitions()]
        grants = GRANTS.format(dataset=dataset, project=address.project)
        return "".join(f"{statement};\n\n" for statement in statements) + grants

    def _role_statements(self) -> Sequence[str]:
        return ()

    def _service(self, connection: Connection) -> str:  # noqa: ARG002
        found = self._bigquery.describe(tables.schema_version.name)
        return f"Google BigQuery in {found.location}" if found else "Google BigQuery"

    def _role(self, connection: Connection) -> str:
        return str(connection.exec_driver_sql("SELECT SESSION_USER()").scalar_one())

    def _may(self, connection: Connection) -> tuple[str, ...]:  # noqa: ARG002
        asked = {
            "read": ("experiment", "bigquery.tables.getData"),
            "run experiments": ("experiment", "bigquery.tables.updateData"),
            "describe the lab": ("experimenter", "bigquery.tables.updateData"),
            "change tables": ("schema_version", "bigquery.tables.update"),
        }
        return tuple(may for may in MAY if self._bigquery.permissions(asked[may][0], [asked[may][1]]))

    def _faults(self, connection: Connection) -> list[str]:  # noqa: ARG002
        return []


def raw(connection: Connection) -> Session:
    driver = connection.connection.driver_connection
    assert isinstance(driver, Session)
    return driver


def _unchanged(row: Any) -> list[ColumnElement[bool]]:
    """Whether the experiment and its newest run are as they were read."""
    mine = run.c.experiment_id == row["id"], run.c.attempt == row["attempt"]
    held = select(run.c.attempt).where(*mine, run.c.state == row["run_state"], run.c.lease_until == row["lease_until"])
    same = [experiment.c[name] == row[name] for name in READ_FROM]
    return [experiment.c.id == row["id"], *same, held.exists() if row["run_state"] else ~held.exists()]


def _storing(statements: Sequence[str]) -> str:
    """The guard comes last, as it writes what the others have counted."""
    lines = [
        f"DECLARE {GROWN} INT64 DEFAULT 0",
        "BEGIN TRANSACTION",
        *statements,
        "IF @@row_count = 1 THEN COMMIT TRANSACTION; SELECT TRUE; ELSE ROLLBACK TRANSACTION; SELECT FALSE; END IF",
    ]
    return ";\n".join(lines)


def _guarded(statements: Sequence[str], is_beat: bool) -> str:
    """A beat needs no transaction, which would abort, and be aborted by, those of others."""
    begin, commit, back = (
        ("", "", "") if is_beat else ("BEGIN TRANSACTION;", "COMMIT TRANSACTION;", "ROLLBACK TRANSACTION;")
    )
    guard, *others = statements
    changes = ";\n".join(others)
    return (
        f"{begin}\n{guard};\nIF @@row_count = 1 THEN {changes};\n{commit} SELECT TRUE; ELSE {back} SELECT FALSE; END IF"
    )
