"""SQLAlchemy's statements in BigQuery's SQL: compiled for a script, or run at once by a DB-API connection.

BigQuery's transactions are scripts: what is read outside one is not locked. So `backend` sends changes as one script
that holds only if what was read still does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from itertools import islice
from types import SimpleNamespace
from typing import Any

from google.cloud.bigquery import (
    ArrayQueryParameter,
    ScalarQueryParameter,
    ScalarQueryParameterType,
    StructQueryParameter,
    StructQueryParameterType,
)
from sqlalchemy import Executable, Table
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import DDLCompiler, GenericTypeCompiler, IdentifierPreparer, SQLCompiler
from sqlalchemy.types import TypeEngine

from ems.databases.bigquery.service import Parameters, Service

NAME = re.compile(r"(?<!@)@(\w+)")
LIST = re.compile(r"IN \(@(\w+)_1(?:, @\1_\d+)*\)")
VALUES = re.compile(r" VALUES \((.*)\)$", re.DOTALL)

Statement = tuple[str, list[ScalarQueryParameter | ArrayQueryParameter]]


class Compiler(SQLCompiler):
    """SQLAlchemy sets both templates to those of `paramstyle`, none of which is BigQuery's: that is not let happen."""

    bindtemplate = compilation_bindtemplate = property(lambda _: "@%(name)s", lambda *_: None)


class TypeCompiler(GenericTypeCompiler):
    """The same names declare columns and parameters."""

    def visit_TEXT(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002
        return "STRING"

    def visit_BIGINT(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002
        return "INT64"

    def visit_DOUBLE(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002
        return "FLOAT64"

    def visit_BOOLEAN(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002
        return "BOOL"

    def visit_DATETIME(self, type_: Any, **kw: Any) -> str:  # noqa: ARG002
        return "TIMESTAMP"

    visit_JSON = visit_VARCHAR = visit_TEXT
    visit_INTEGER = visit_BIGINT
    visit_FLOAT = visit_DOUBLE


class Tables(DDLCompiler):
    """Tables without keys and defaults, clustered by experiment where they have its id."""

    def create_table_constraints(self, *_: Any, **kw: Any) -> str:  # noqa: ARG002
        """None: BigQuery enforces no keys."""
        return ""

    def get_column_default_string(self, column: Any) -> None:
        """None: EMS writes every column."""

    def post_create_table(self, table: Any) -> str:
        return " CLUSTER BY experiment_id" if "experiment_id" in table.c else ""


class Preparer(IdentifierPreparer):
    """Puts every name in backquotes."""

    def __init__(self, dialect: Any) -> None:
        super().__init__(dialect, initial_quote="`", escape_quote="`")

    def _requires_quotes(self, value: str) -> bool:  # noqa: ARG002
        return True


class Dialect(DefaultDialect):
    """BigQuery for SQLAlchemy: compiles statements, and runs them by `Cursor.run`."""

    name = "bigquery"
    default_paramstyle = "named"
    statement_compiler = Compiler
    ddl_compiler = Tables
    type_compiler_cls = TypeCompiler
    preparer = Preparer  # type: ignore[assignment]
    supports_statement_cache = True
    supports_native_boolean = True
    postfetch_lastrowid = False
    supports_sane_rowcount = False
    supports_sane_multi_rowcount = False

    @classmethod
    def import_dbapi(cls) -> Any:
        """Google's exceptions come through as they are."""
        return SimpleNamespace(paramstyle="named", Error=type("Error", (Exception,), {}))

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        cursor.run(statement, [parameters], context)

    def do_executemany(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        cursor.run(statement, list(parameters), context)


class Session:
    """The DB-API's connection: each statement is a job of its own, and holds at once."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def cursor(self) -> Cursor:
        """A new cursor, for one statement."""
        return Cursor(self.service)

    def commit(self) -> None:
        """All was sent."""

    rollback = close = commit


class Cursor:
    """The DB-API's cursor: the rows of the last statement, fetched as they are asked for."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._rows: Iterator[tuple[Any, ...]] = iter(())
        self.description: list[tuple[Any, ...]] | None = None
        self.rowcount = -1

    def run(self, statement: str, rows: list[dict[str, Any]], context: Any) -> None:
        """Run a statement in one job for all `rows` of parameters, whose types SQLAlchemy's `context` knows."""
        kinds = {} if context is None or context.compiled is None else kinds_of(context.compiled)
        sql, parameters = _of_many(statement, rows, kinds) if len(rows) > 1 else _of_one(statement, rows[0], kinds)
        found = self._service.query(sql, parameters)
        self.description = [(field.name, *[None] * 6) for field in found.schema]
        self._rows = (row.values() for row in found)

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None after the last."""
        return next(self._rows, None)

    def fetchmany(self, size: int = 1000) -> list[tuple[Any, ...]]:
        """The next rows, at most `size`."""
        return list(islice(self._rows, size))

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that remain."""
        return list(self._rows)

    def close(self) -> None:
        """Nothing is held open."""


def kinds_of(made: Any) -> dict[str, str]:
    """BigQuery's type of each parameter of a compiled statement."""
    process = made.dialect.type_compiler_instance.process
    return {name: process(bind.type) for name, bind in made.binds.items()}


def compiled(statement: Executable, dialect: Dialect, rows: Sequence[Mapping[str, Any]] = ({},)) -> Statement:
    """A statement with its parameters, ready to be sent; `rows`: those that it has not yet, for each row."""
    made: Any = statement.compile(dialect=dialect, column_keys=list(rows[0]) or None)  # type: ignore[attr-defined]
    sent = [
        {name: sendable(made.binds[name].type, value, dialect) for name, value in made.construct_params(row).items()}
        for row in rows
    ]
    kinds = kinds_of(made)
    return _of_many(str(made), sent, kinds) if len(sent) > 1 else (str(made), _one(sent[0], kinds))


def sendable(type: TypeEngine[Any], value: Any, dialect: Dialect) -> Any:
    """The value of a parameter of this type, as it is sent."""
    process = type.dialect_impl(dialect).bind_processor(dialect)
    return process(value) if process else value


def merge(
    table: Table, rows: Sequence[Mapping[str, Any]], keys: Sequence[str], update: bool, dialect: Dialect
) -> Statement:
    """One statement that inserts those rows that are not there, and may update those that are."""
    names = list(rows[0])
    process = dialect.type_compiler_instance.process
    kinds = {name: process(table.c[name].type) for name in names}
    sent = [{name: sendable(table.c[name].type, value, dialect) for name, value in row.items()} for row in rows]
    given = ", ".join(f"each.`{name}` AS `{name}`" for name in names)
    same = " AND ".join(f"old.`{key}` = new.`{key}`" for key in keys)
    assigned = ", ".join(f"`{name}` = new.`{name}`" for name in names)
    sql = (
        f"MERGE `{table.name}` AS old USING (SELECT {given} FROM UNNEST(@many) AS each) AS new ON {same} "
        f"{f'WHEN MATCHED THEN UPDATE SET {assigned} ' if update else ''}"
        f"WHEN NOT MATCHED THEN INSERT ({', '.join(f'`{name}`' for name in names)}) "
        f"VALUES ({', '.join(f'new.`{name}`' for name in names)})"
    )
    return sql, [_array(sent, kinds)]


def _array(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> ArrayQueryParameter:
    fields = [ScalarQueryParameterType(kinds[name], name=name) for name in rows[0]]  # type: ignore[no-untyped-call]
    values = [StructQueryParameter(None, *_one(row, kinds)) for row in rows]
    return ArrayQueryParameter("many", StructQueryParameterType(*fields), values)  # type: ignore[no-untyped-call]


def _of_one(statement: str, values: dict[str, Any], kinds: Mapping[str, str]) -> Statement:
    """Lists come as one parameter each, as there may be thousands of values in them."""
    lists = []
    for name in LIST.findall(statement):
        listed = [values.pop(key) for key in [key for key in values if re.fullmatch(rf"{name}_\d+", key)]]
        lists.append(ArrayQueryParameter(name, kinds[name], listed))
    return LIST.sub(r"IN UNNEST(@\1)", statement), [*_one(values, kinds), *lists]


def _one(values: Mapping[str, Any], kinds: Mapping[str, str]) -> list[Any]:
    return [ScalarQueryParameter(name, kinds[name], value) for name, value in values.items()]


def _of_many(statement: str, rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> tuple[str, list[Any]]:
    """One statement for all rows, which come as one parameter: BigQuery takes seconds for each statement."""
    per_row = NAME.sub(r"each.\1", statement)
    if VALUES.search(per_row):
        sql = VALUES.sub(r" SELECT \1 FROM UNNEST(@many) AS each", per_row)
    else:
        head, _, condition = per_row.partition(" WHERE ")
        sql = f"{head} WHERE EXISTS (SELECT 1 FROM UNNEST(@many) AS each WHERE {condition})"
    return sql, [_array(rows, kinds)]


def script(changes: Sequence[Statement]) -> tuple[list[str], Parameters]:
    """The statements with their parameters numbered, so that they fit one script."""
    statements, parameters = [], []
    for number, (sql, own) in enumerate(changes):
        statements.append(NAME.sub(rf"@s{number}_\1", sql))
        for parameter in own:
            renamed = copy(parameter)
            renamed.name = f"s{number}_{parameter.name}"
            parameters.append(renamed)
    return statements, parameters
