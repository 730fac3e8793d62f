"""A table of BigQuery: `bigquery://PROJECT/DATASET`, as the lab's database is named. Reading it costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud.bigquery import SchemaField, Table

from ems.base.errors import UserError
from ems.databases.bigquery.database import FIRST_PAUSE_S, WAIT_S
from ems.databases.bigquery.service import REQUEST_S, Address, Service
from ems.databases.copying import speaking_of
from ems.importing.source import Changed, Reading, refuse_unknown
from ems.importing.tables import TableSource, chosen
from ems.node.job.columns import KnownTypes
from ems.spool.batch import ColumnType

PAGE_ROWS = 10_000
DEFAULT: dict[str, ColumnType] = {
    **dict.fromkeys(("INTEGER", "INT64"), "int64"),
    **dict.fromkeys(("FLOAT", "FLOAT64", "NUMERIC", "BIGNUMERIC"), "float64"),
    **dict.fromkeys(("BOOLEAN", "BOOL"), "bool"),
    **dict.fromkeys(("STRING", "DATE", "DATETIME", "TIME", "TIMESTAMP"), "text"),
}


def opened(url: str, reading: Reading) -> BigquerySource:
    """The table as a source; UserError if the URL or the table is none, DatabaseError if Google refuses."""
    with speaking_of("The source"):
        service = Service(Address.of(url), WAIT_S, FIRST_PAUSE_S)
    return BigquerySource(service, reading)


class BigquerySource(TableSource):
    """Read page by page, in whatever order the service has; that nobody writes to it meanwhile is checked."""

    kind = "bigquery"
    keeps_order = False

    def __init__(self, service: Service, reading: Reading) -> None:
        super().__init__()
        self.name, self._service = service.name, service
        with self._mapped():
            self._table = self._found(reading.table)
        self.table = self._table.table_id
        if self._table.table_type != "TABLE":
            problem = f"{self.name}: {self.table} is of type {self._table.table_type}, and only tables can be read."
            raise UserError(problem, "Make a table of it: CREATE TABLE … AS SELECT * FROM …")
        self.size = self._table.num_rows or 0
        self._fields: Sequence[SchemaField] = self._table.schema
        refuse_unknown(reading.types, self.names(), "--type")
        for field in self._fields:
            self._refuse_type(field)

    def _found(self, wanted: str) -> Table:
        try:
            if wanted:
                return self._described(wanted)
        except NotFound:
            pass
        listed = self._service.client.list_tables(self._service.address.dataset, timeout=REQUEST_S)
        return self._described(chosen(wanted, sorted(table.table_id for table in listed), self.name))

    def _described(self, name: str) -> Table:
        return self._service.client.get_table(self._service.table(name), timeout=REQUEST_S)

    def _refuse_type(self, field: SchemaField) -> None:
        if field.field_type not in DEFAULT or field.mode == "REPEATED":
            shown = f"ARRAY<{field.field_type}>" if field.mode == "REPEATED" else field.field_type
            problem = f"{self.name}, table {self.table}: column {field.name!r} is of type {shown}"
            hint = "Make a table without it, or with text in its place: CREATE TABLE … AS SELECT TO_JSON_STRING(…), …"
            raise UserError(f"{problem}, which has no exact form here.", hint)

    def names(self) -> list[str]:
        return [field.name for field in self._fields]

    def default_types(self) -> Mapping[str, ColumnType]:
        return {field.name: DEFAULT[field.field_type] for field in self._fields}

    def pages(self, types: KnownTypes) -> Iterator[Sequence[tuple[Any, ...]]]:  # noqa: ARG002
        with self._mapped():
            rows = self._service.client.list_rows(self._table, page_size=PAGE_ROWS, timeout=REQUEST_S)
            for page in rows.pages:
                if found := [row.values() for row in page]:
                    yield found

    def refuse_change(self) -> None:
        with self._mapped():
            if self._described(self.table).modified != self._table.modified:
                raise Changed(f"{self.name}, table {self.table},")

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        with speaking_of("The source"), self._service.mapped():
            yield

    def close(self) -> None:
        self._service.close()
