"""The lab's database in PostgreSQL 12 or newer: `postgresql://[user@]host[:port]/database`, or `postgresql:///?service=lab`.

The URL goes to libpq as it is: TLS by `sslmode`, hosts, services and files as libpq documents them. Passwords come from
~/.pgpass, PGPASSFILE, a service file, a client certificate or Kerberos, or from the version of a secret that
`password_from` names (secret_versions.py), which libpq does not see; never from the URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ems.databases import Experiment
from ems.databases.migrations import MIGRATIONS, Migration
from ems.databases.postgresql import roles
from ems.databases.postgresql import snippets as postgresql_snippets
from ems.databases.postgresql.backend import PostgresqlBackend
from ems.databases.snippets import Language
from ems.databases.sql import SqlDatabase


def connect(url: str, root: Path) -> PostgresqlDatabase:  # noqa: ARG001  (only a file needs the lab's folder)
    """The database at `url`; UserError if that is not a PostgreSQL URL, or holds a secret."""
    return PostgresqlDatabase(url)


class PostgresqlDatabase(SqlDatabase):
    """The SQL database with PostgreSQL's backend, roles and snippets."""

    _backend: PostgresqlBackend

    def __init__(self, url: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        super().__init__(PostgresqlBackend(url, migrations))

    def setup_script(self) -> str:
        return super().setup_script() + roles.LOGIN

    def snippet(self, language: Language, experiment: Experiment, root: Path) -> str:
        of, url, settings = experiment.registration, self._backend.plain_url, self._backend.settings
        return postgresql_snippets.snippet(language, of.stack, of.results_table, url, settings, root)
