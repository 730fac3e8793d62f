"""What is recorded of an import: where the rows come from, and who knows what about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, Literal

from ems.base.errors import UserError
from ems.base.messages import counted, quoted
from ems.databases import IMPORTED, UNKNOWN, Registration
from ems.importing.source import Reading, Source
from ems.importing.survey import Survey
from ems.lab import Lab
from ems.provenance import identity

KEY = "imported"  # of an experiment's spec
COMMIT = re.compile(r"[0-9a-f]{7,64}")
Done = Literal["planned", "imported", "already imported"]
DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?)?)?)?")


@dataclass(frozen=True)
class Said:
    """What a person knows of the rows; "" for what nobody has said."""

    commit: str = ""
    project: str = ""
    experimenter: str = ""
    funding: str = ""
    title: str = ""
    date: str = ""

    def check(self) -> None:
        """UserError for what cannot be a commit or a date."""
        if self.commit and not COMMIT.fullmatch(self.commit):
            raise UserError(
                f"--commit is {quoted(self.commit)}: that is not a hash.", "Allowed: 7 to 64 digits of 0-9 and a-f."
            )
        if self.date and not (DATE.fullmatch(self.date) and _is_date(self.date)):
            allowed = "Allowed: 2026, 2026-01, 2026-01-31 or 2026-01-31T14:00, as far as it is known."
            raise UserError(f"--date is {quoted(self.date)}: that is not a date.", allowed)


def _is_date(text: str) -> bool:
    missing = {4: "-01-01", 7: "-01"}.get(len(text), "")
    try:
        datetime.fromisoformat(text + missing)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Imported:
    """Where an experiment's rows come from. Texts of which nothing is known are `unknown`.

    `sha256`: of the file, or of `content` "rows" of their values; `columns`: types by name, as stored; `read_at`: when
    the source was read, ISO 8601 in UTC.
    """

    kind: str
    source: str
    table: str
    content: str
    sha256: str
    rows: int
    columns: Mapping[str, str]
    parameters: tuple[str, ...]
    left_out: tuple[str, ...]
    read_at: str
    commit: str = UNKNOWN
    project: str = UNKNOWN
    experimenter: str = UNKNOWN
    funding: str = UNKNOWN
    title: str = ""
    date: str = UNKNOWN
    delimiter: str = ""
    types: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def knowing(self, said: Said) -> Imported:
        """With what somebody says now; what is not said stays."""
        return replace(self, **{name: value for name, value in asdict(said).items() if value})

    def like(self, before: Imported | None) -> Imported:
        """With what was said before."""
        if before is None:
            return self
        return replace(self, **{each.name: getattr(before, each.name) for each in fields(Said)})

    def line(self) -> str:
        """As `1,200 rows of results.csv (SHA-256 1f3a…)`."""
        table = f", table {self.table}" if self.table else ""
        return (
            f"{counted(self.rows, 'row')} of {self.source}{table} (SHA-256 of the {self.content} {self.sha256[:12]}…)"
        )


@dataclass(frozen=True)
class Brought:
    """What became of it. `registration`: the experiment's; of a plan, what it would be."""

    done: Done
    registration: Registration
    imported: Imported
    unread: tuple[str, ...] = ()


def made(source: Source, reading: Reading, surveyed: Survey, parameters: tuple[str, ...]) -> Imported:
    """What is to be recorded of a source that was surveyed, before anybody has said more."""
    return Imported(
        kind=source.kind,
        source=source.name,
        table=source.table,
        content="file" if source.digest() else "rows",
        sha256=surveyed.digest,
        rows=surveyed.rows,
        columns=surveyed.types(),
        parameters=parameters,
        left_out=surveyed.left_out,
        read_at=datetime.now(UTC).isoformat(timespec="seconds"),
        delimiter=reading.delimiter,
        types=dict(reading.types),
        renamed=dict(reading.renamed),
    )


def read(registration: Registration) -> Imported | None:
    """What is recorded of an imported experiment; None of another one, or of a row that was read without its spec."""
    if not (registration.imported and registration.spec):
        return None
    values: dict[str, Any] = json.loads(registration.spec)[KEY]
    for name in ("parameters", "left_out"):
        values[name] = tuple(values[name])
    return Imported(**values)


def digest_of(content: str, reading: Reading) -> str:
    """What makes an import the same: the digest of its content, and how it is read."""
    parts: dict[str, Any] = {"sha256": content}
    if reading.delimiter:
        parts["delimiter"] = reading.delimiter
    for name, value in (("types", reading.types), ("renamed", reading.renamed)):
        if value:
            parts[name] = dict(value)
    return identity.digest(tree="", job={KEY: parts}, environment="", python="", inputs={}, env={})


def id_of(lab: Lab, stack: str, digest: str) -> str:
    """The id of an experiment that was imported under this name, with this `digest_of` it."""
    return identity.experiment_id(lab.id, stack, digest)


def registration(lab: Lab, stack: str, table: str, imported: Imported) -> Registration:
    """The row of an imported experiment."""
    reading = Reading(delimiter=imported.delimiter, types=imported.types, renamed=imported.renamed)  # type: ignore[arg-type]
    digest = digest_of(imported.sha256, reading)
    spec = {KEY: asdict(imported), "title": imported.title, "results": {"table": table}}
    return Registration(
        id=id_of(lab, stack, digest),
        stack=stack,
        digest=digest,
        experimenter=imported.experimenter,
        project=imported.project,
        funding=imported.funding,
        spec=json.dumps(spec, separators=(",", ":"), allow_nan=False),
        repository="",
        commit=imported.commit,
        tree=UNKNOWN,
        stack_file_commit=UNKNOWN,
        environment=UNKNOWN,
        environment_digest=UNKNOWN,
        python=UNKNOWN,
        cluster=IMPORTED,
        results_table=table,
        points_total=1,
    )
