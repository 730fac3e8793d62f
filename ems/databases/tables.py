"""The registry's tables, readable without EMS: plain names, UTC times, one row per thing.

`experiment` points to its `experimenter`, `project` and `funding`; a `run` is one attempt at an experiment; a
`charge` is what a run cost; a `point` is one without rows, empty or failed; `copied` says which points (from
`first_point` to `last_point`) were taken from another experiment (there from `source_point` on); `proposed` has the
points of rounds that results decided, as grids in JSON, the text in parts; an `output` is a file that a job left, which
the lab's store has by its `digest`. Results are in tables of their own, named by `experiment.results_table`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    TypeDecorator,
)
from sqlalchemy.engine import Dialect

from ems.base.errors import DatabaseError
from ems.databases.records import ClusterRow, Experimenter, Funding, Project


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time: text such as `2026-01-31 12:00:00.000000` where a service has no type for it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class Remark(TypeDecorator[str]):
    """Text that a job wrote, as every service can store it: NUL reads `␀`, half a surrogate pair `?`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else storable(value)


def storable(text: str) -> str:
    """The text as every service can store it: NUL reads `␀`, half a surrogate pair `?`."""
    return text.replace("\0", "␀").encode("utf-8", "replace").decode("utf-8")


metadata = MetaData()


def _text(name: str, *args: Any) -> Column[str]:
    return Column(name, Text, *args, nullable=False)


def _remark(name: str) -> Column[str]:
    return Column(name, Remark, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _time(name: str, *, required: bool = False) -> Column[datetime]:
    return Column(name, UtcTime, nullable=not required)


schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True, autoincrement=False))

experimenter = Table(
    "experimenter",
    metadata,
    Column("id", Text, primary_key=True),
    *(_text(name) for name in ("name", "email", "github", "gcp_account", "aws_account")),
)

project = Table(
    "project",
    metadata,
    Column("id", Text, primary_key=True),
    _text("title"),
    Column("parent", Text, ForeignKey("project.id")),
    _text("description"),
)

funding = Table(
    "funding",
    metadata,
    Column("id", Text, primary_key=True),
    _text("agency"),
    _text("award"),
    Column("budget_usd", Double),
    Column("expires", Date),
    *(_text(name) for name in ("slurm_account", "gcp_project", "aws_account")),
)

cluster = Table(
    "cluster",
    metadata,
    Column("id", Text, primary_key=True),
    _text("kind"),
    _text("settings"),
)

experiment = Table(
    "experiment",
    metadata,
    Column("id", Text, primary_key=True),
    _text("stack"),
    _text("digest"),
    _text("experimenter", ForeignKey("experimenter.id")),
    _text("project", ForeignKey("project.id")),
    _text("funding", ForeignKey("funding.id")),
    *(_text(name) for name in ("spec", "repository", "commit", "tree", "stack_file_commit")),
    *(_text(name) for name in ("environment", "environment_digest", "python", "cluster", "results_table")),
    _number("points_total"),
    Column("max_hours", Double),
    Column("limit_usd", Double),
    _number("reviewed_attempt"),
    _text("state"),
    _number("attempt"),
    _number("wanted_attempt"),
    *(_number(name) for name in ("points_done", "points_failed", "rows_stored", "machines")),
    Column("cost_usd", Double, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    _time("registered_at", required=True),
    *(_time(name) for name in ("deadline_at", "started_at", "finished_at", "destroyed_at")),
    _remark("error"),
    _remark("log_tail"),
    Column("job_digest", Text, nullable=False, server_default=""),
    Column("used_s", Double, nullable=False, server_default="0"),
    Column("files_left", Remark, nullable=False, server_default=""),
    Column("pilot", BigInteger),
)

Index("ix_experiment_newest", *(experiment.c[name] for name in ("stack", "destroyed_at", "registered_at", "id")))

run = Table(
    "run",
    metadata,
    Column("experiment_id", Text, ForeignKey("experiment.id"), primary_key=True),
    Column("attempt", BigInteger, primary_key=True, autoincrement=False),
    _text("agent"),
    _text("state"),
    _time("claimed_at", required=True),
    _time("heartbeat_at", required=True),
    _time("lease_until", required=True),
    _time("finished_at"),
    Column("exit_code", Integer),
    _remark("error"),
    Column("platform", Text, nullable=False, server_default=""),
)

point = Table(
    "point",
    metadata,
    Column("experiment_id", Text, ForeignKey("experiment.id"), primary_key=True),
    Column("point", BigInteger, primary_key=True, autoincrement=False),
    _text("state"),
    Column("parameters", JSON, nullable=False),
    _remark("error"),
    Column("attempt", BigInteger, nullable=False, server_default="0"),
)

copied = Table(
    "copied",
    metadata,
    Column("experiment_id", Text, ForeignKey("experiment.id"), primary_key=True),
    Column("first_point", BigInteger, primary_key=True, autoincrement=False),
    _number("last_point"),
    _text("source", ForeignKey("experiment.id")),
    _number("source_point"),
    _number("attempt"),
)

proposed = Table(
    "proposed",
    metadata,
    Column("experiment_id", Text, ForeignKey("experiment.id"), primary_key=True),
    Column("round", BigInteger, primary_key=True, autoincrement=False),
    Column("part", BigInteger, primary_key=True, autoincrement=False),
    *(_number(name) for name in ("first_point", "points")),
    *(_text(name) for name in ("grids", "digest")),
    _number("attempt"),
    _time("at", required=True),
)

output = Table(
    "output",
    metadata,
    Column("experiment_id", Text, ForeignKey("experiment.id"), primary_key=True),
    Column("point", BigInteger, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    _text("digest"),
    _number("size"),
    _text("media_type"),
    _number("attempt"),
)

charge = Table(
    "charge",
    metadata,
    Column("experiment_id", Text, primary_key=True),
    Column("attempt", BigInteger, primary_key=True, autoincrement=False),
    _text("funding", ForeignKey("funding.id")),
    Column("hours", Double, nullable=False),
    Column("usd", Double, nullable=False),
    _time("at", required=True),
    Column("basis", Text, nullable=False, server_default=""),
    ForeignKeyConstraint(["experiment_id", "attempt"], ["run.experiment_id", "run.attempt"]),
)


KEPT = frozenset(metadata.tables) | {"loaded_batch", "database_identity"}  # which BigQuery and SQLite have besides


def check_results_table(name: str) -> None:
    """DatabaseError if EMS or a service keeps the name for itself; the same ones everywhere, so that labs can move."""
    if name.lower() in KEPT or name.lower().startswith(("sqlite_", "pg_")):
        raise DatabaseError(
            f"results table {name!r} is a name that the database or EMS keeps for itself.",
            f"Any but {', '.join(sorted(KEPT))}, sqlite_… and pg_…",
        )


TABLE_OF: dict[type[Any], Table] = {
    Experimenter: experimenter,
    Project: project,
    Funding: funding,
    ClusterRow: cluster,
}
