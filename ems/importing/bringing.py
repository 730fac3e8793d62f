"""`ems import`: from a source to a finished experiment, or to what would be one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, field

from ems.base.errors import DatabaseError, DatabaseUnavailable, UserError
from ems.base.messages import Say, quoted
from ems.databases import (
    RETRYABLE,
    UNKNOWN,
    Database,
    Experiment,
    Experimenter,
    Funding,
    Project,
    Record,
    Registration,
    State,
    tables,
)
from ems.importing import record
from ems.importing.places import opened
from ems.importing.record import Brought, Said
from ems.importing.source import Changed, Reading, Source
from ems.importing.storing import alone, store
from ems.importing.survey import Survey, batches, survey
from ems.lab import Lab
from ems.stack import fields

Bar = Callable[[str], AbstractContextManager[Callable[[float], None]]]
NOBODY: dict[str, Record] = {
    "experimenter": Experimenter(UNKNOWN, UNKNOWN),
    "project": Project(UNKNOWN, UNKNOWN),
    "funding": Funding(UNKNOWN, UNKNOWN),
}
UNFIT = (
    "Give the column that type (--type COLUMN=TYPE) or another name (--rename OLD=NEW), or import into another table: "
    "--into TABLE"
)


@dataclass(frozen=True)
class Wanted:
    """What somebody wants to import. `stack`: under which name; `into`: the results table, "" for that of the name."""

    source: str
    stack: str
    into: str = ""
    parameters: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    said: Said = field(default_factory=Said)


def bring(lab: Lab, wanted: Wanted, bar: Bar, remark: Say, *, dry_run: bool = False) -> Brought:
    """Import a table, exactly once; with `dry_run`, only read it and compare.

    UserError or DatabaseError, and nothing is registered, for what is known to be impossible before. `bar` shows how
    far a step is.
    """
    wanted.said.check()
    _refuse_name(lab, wanted.stack)
    table = _table(wanted)
    with ExitStack() as stack:
        source = stack.enter_context(closing(opened(wanted.source, lab.root, wanted.reading)))
        database = stack.enter_context(lab.database())
        _refuse_unknown(database, wanted.said)
        return _Bringing(lab, database, source, wanted, table, bar, remark)(dry_run=dry_run)


@dataclass(frozen=True)
class _Bringing:
    lab: Lab
    database: Database
    source: Source
    wanted: Wanted
    table: str
    bar: Bar
    remark: Say

    def __call__(self, *, dry_run: bool) -> Brought:
        content = self.source.digest()
        if content and not dry_run and (known := self._known(content)) and known.state is State.SUCCEEDED:
            return self._again(known)
        with self.bar(f"reading {self.source.name}") as show:
            surveyed = survey(self.source, self.wanted.reading, self.wanted.parameters, show)
        known = self._known(surveyed.digest)
        if known and known.state is State.SUCCEEDED and not dry_run:
            return self._again(known)
        made = record.made(self.source, self.wanted.reading, surveyed, self.wanted.parameters)
        made = made.like(record.read(known.registration) if known else None).knowing(self.wanted.said)
        row = record.registration(self.lab, self.wanted.stack, self.table, made)
        given_up = self._given_up(row)
        self._check_columns(surveyed)
        if given_up and not dry_run:
            self.database.mark_destroyed(given_up.id)  # so that it is not the newest one any more
        if not dry_run:
            self._store(row, surveyed)
        return Brought("planned" if dry_run else "imported", row, made, self._unread())

    def _known(self, content: str) -> Experiment | None:
        digest = record.digest_of(content, self.wanted.reading)
        return self.database.experiment(record.id_of(self.lab, self.wanted.stack, digest))

    def _again(self, known: Experiment) -> Brought:
        """The same content: nothing is stored; what is said now is added to what is known."""
        before = record.read(known.registration)
        assert before is not None
        now = before.knowing(self.wanted.said)
        row = known.registration
        if now != before:
            row = record.registration(self.lab, row.stack, row.results_table, now)
            self._add_unknown(row)
            self.database.register(row)
        if self.wanted.into not in {"", row.results_table}:
            self.remark(f"Its rows stay in results table {row.results_table}.")
        return Brought("already imported", row, now, self._unread())

    def _unread(self) -> tuple[str, ...]:
        return tuple(self.source.unread())

    def _given_up(self, row: Registration) -> Experiment | None:
        """What had the name before, and was given up. UserError if other rows have it."""
        tables.check_results_table(row.results_table)
        newest = self.database.newest([row.stack], also=["spec"])
        other = next((found for found in newest if found.id != row.id), None)
        if other and not other.registration.imported:
            raise UserError(f"{row.stack} is the name of an experiment that EMS has run.", _another(row.stack))
        if other and other.state not in RETRYABLE:
            raise _other_content(other)
        return other

    def _add_unknown(self, row: Registration) -> None:
        """The rows that stand for whoever is not known."""
        for table, id, _ in self.database.missing(row.experimenter, row.project, row.funding):
            if id == UNKNOWN:
                self.database.upsert(NOBODY[table])

    def _store(self, row: Registration, surveyed: Survey) -> None:
        with alone(self.lab, row.id, row.stack) as agent:
            self._add_unknown(row)
            if self.database.register(row).state in RETRYABLE:
                self.database.reopen(row.id)
            read = batches(self.source, self.wanted.reading, surveyed)
            storing = store(self.lab, self.database, row.id, agent, read, self.source.keeps_order, self.remark)
            if storing.there:
                self.remark(f"Going on after {storing.there:,} rows that are stored.")
            imported = record.read(row)
            assert imported is not None
            with self.bar(f"storing {row.stack}") as show:
                storing.run(surveyed.rows, show, lambda: self._check(surveyed), f"imported {imported.line()}")

    def _check_columns(self, surveyed: Survey) -> None:
        """DatabaseError, which says what this command can do, if the rows do not fit into the results table."""
        try:
            self.database.check_columns(self.table, surveyed.sample)
        except DatabaseUnavailable:
            raise
        except DatabaseError as error:
            raise type(error)(error.message, UNFIT) from error

    def _check(self, surveyed: Survey) -> None:
        """What was stored is what was surveyed."""
        self.source.refuse_change()
        if not self.source.digest() and self.source.rows_digest() != surveyed.digest:
            raise Changed(self.source.name)


def _refuse_name(lab: Lab, stack: str) -> None:
    try:
        fields.STACK.check(stack)
    except ValueError as error:
        raise UserError(f"--as {error}.") from None
    if alike := [other for other in lab.stacks() if other.casefold() == stack.casefold()]:
        raise UserError(
            f"{alike[0]} is the name of a stack file: {lab.stack_file(alike[0]).relative_to(lab.root)}.",
            _another(stack),
        )


def _another(stack: str) -> str:
    return f"Import under another name: --as {stack}-imported"


def _other_content(other: Experiment) -> UserError:
    stack, before = other.registration.stack, record.read(other.registration)
    what = f"{stack} is imported already, from other content or read otherwise: {before.line() if before else ''}"
    if other.state is State.SUCCEEDED:
        return UserError(
            f"{what}.", f"What was imported stays. Import the new content under a name of its own: --as {stack}-2"
        )
    hint = (
        f"Import that again to go on with it; or give it up: ems stop {stack}. Or choose another name: --as {stack}-2"
    )
    return UserError(f"{what}, and that is not finished: it is {other.state}.", hint)


def _refuse_unknown(database: Database, said: Said) -> None:
    """UserError for a project, experimenter or funding account that the lab does not have."""
    experimenter, project, funding = (id or UNKNOWN for id in (said.experimenter, said.project, said.funding))
    for table, id, known in database.missing(experimenter, project, funding):
        if id != UNKNOWN:
            there = ", ".join(name for name in known if name != UNKNOWN) or "none yet"
            raise UserError(
                f"--{table} is {quoted(id)}, which the lab does not have.", f"There are: {there}. Add it: ems up lab"
            )


def _table(wanted: Wanted) -> str:
    """The results table."""
    name = wanted.into or _default_table(wanted.stack)
    try:
        fields.TABLE.check(name)
    except ValueError as error:
        raise UserError(f"The results table {error}.", "Name one: --into TABLE") from None
    return name


def _default_table(stack: str) -> str:
    name = "".join(letter if letter.isalnum() else "_" for letter in stack.lower())[:40]
    is_kept = name in fields.RESERVED_TABLES or name.startswith(("sqlite_", "pg_"))
    return f"imported_{name}" if is_kept or not name[:1].isalpha() else name
