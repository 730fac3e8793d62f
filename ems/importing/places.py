"""Which kind of source somebody has named."""

from __future__ import annotations

import importlib
from pathlib import Path
from urllib.parse import urlsplit

from ems.base.errors import UserError
from ems.base.messages import quoted
from ems.importing import files
from ems.importing.source import Reading, Source
from ems.importing.sqlite import SqliteSource, is_sqlite

SERVICES = {"postgresql": "postgresql", "postgres": "postgresql", "bigquery": "bigquery"}
SQLITE = "sqlite:///"
ALLOWED = (
    "a file (CSV, JSON-lines, Parquet, SQLite), a folder of such files, postgresql://… or bigquery://PROJECT/DATASET"
)


def opened(text: str, root: Path, reading: Reading) -> Source:
    """The source that `text` names: a path from the working directory, or a URL. `root`: the lab's folder.

    UserError if there is none, or it cannot be read; DatabaseError if a service does not answer.
    """
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme in SERVICES:
        return _of_service(SERVICES[scheme], text, reading)
    if scheme and not text.startswith(SQLITE):
        raise UserError(f"{quoted(_without_secrets(text))} is not a source that can be read.", f"Allowed: {ALLOWED}")
    path = root / text.removeprefix(SQLITE) if scheme else Path(text).expanduser()
    if not path.exists():
        raise UserError(f"{path} does not exist.", f"Allowed: {ALLOWED}")
    name = _name(path, root)
    if is_sqlite(path):
        _refuse(reading.delimiter, "--delimiter", "of SQLite")
        return SqliteSource(path, name, reading)
    _refuse(reading.table, "--table", "without tables")
    return files.opened(path, name, reading)


def _of_service(kind: str, url: str, reading: Reading) -> Source:
    _refuse(reading.delimiter, "--delimiter", "of a database")
    try:
        module = importlib.import_module(f"ems.importing.{kind}")
    except ImportError as error:
        raise UserError(
            f"Reading {kind} needs a package that is not installed: {error}.", f"pip install 'ems-experiments[{kind}]'"
        ) from error
    source: Source = module.opened(url, reading)
    return source


def _refuse(given: str, option: str, what: str) -> None:
    if given:
        raise UserError(f"{option} is given, which means nothing for a source {what}.", f"Leave out {option}.")


def _name(path: Path, root: Path) -> str:
    """As recorded: from the lab's folder, where it lies in that."""
    whole = path.resolve()
    return str(whole.relative_to(root.resolve())) if whole.is_relative_to(root.resolve()) else str(whole)


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
