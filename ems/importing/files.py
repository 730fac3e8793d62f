"""Files as sources: CSV and its kin, JSON-lines, Parquet; or a folder of such files, which make one table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from ems.base.errors import UserError
from ems.base.messages import some
from ems.importing.delimited import SIGNS, CommaFile, DelimitedFile
from ems.importing.source import Changed, Reading, Source
from ems.node.job.columns import KnownTypes
from ems.node.job.json_file import JsonLinesFile
from ems.node.job.results_file import CELLS_AT_ONCE, Chunk, ResultsError, signature
from ems.provenance.digests import known_sha256
from ems.spool.batch import ColumnType

KINDS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
MOST_ROWS, MOST_BYTES = 20_000, 8 * 2**20  # of a chunk
SAY = "Say how its cells are separated: --delimiter tab (or comma, semicolon, pipe, space, or the sign itself)."


class JsonLines(JsonLinesFile):
    """JSON-lines that do not grow."""

    @property
    def names(self) -> list[str]:
        """The columns that were met."""
        return list(self._names)


class FileSource(Source):
    """One file, or several that make one table, taken by name."""

    def __init__(self, paths: list[Path], name: str, kind: str, reading: Reading, unread: list[str]) -> None:
        self.kind, self.name = kind, name
        self._paths, self._reading, self._unread = paths, reading, unread
        self._names: dict[str, None] = {}
        self._defaults: dict[str, ColumnType] = {}
        self._seen = {path: signature(path) for path in paths}
        self.size = sum(path.stat().st_size for path in paths)

    def digest(self) -> str:
        """Of one file its own; of several, that of the lines that `sha256sum` prints for them, taken by name."""
        if len(self._paths) == 1:
            return known_sha256(self._paths[0])
        lines = "".join(f"{known_sha256(path)}  {path.name}\n" for path in self._paths)
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()

    def chunks(self, types: KnownTypes) -> Iterator[Chunk]:
        for path in self._paths:
            yield from self._of_parquet(path, types) if self.kind == "parquet" else self._of_text(path, types)

    def _of_parquet(self, path: Path, types: KnownTypes) -> Iterator[Chunk]:
        from ems.importing.parquet import ParquetTable  # pyarrow takes a while to load

        file = ParquetTable(path)
        self._names |= dict.fromkeys(file.types)
        self._defaults |= {name: type for name, type in file.types.items() if name not in self._defaults}
        most = max(1, min(MOST_ROWS, CELLS_AT_ONCE // max(1, len(file.types))))
        yield from file.chunks(types, most, MOST_BYTES)

    def _of_text(self, path: Path, types: KnownTypes) -> Iterator[Chunk]:
        file, rows = self._file(path, types), MOST_ROWS
        try:
            while (chunk := file.take(rows, MOST_BYTES, True)) is not None:
                self._names |= dict.fromkeys(file.names)
                rows = max(1, min(MOST_ROWS, CELLS_AT_ONCE // max(1, len(file.names))))
                yield chunk
        except ResultsError as error:
            raise UserError(error.message, error.hint) from error

    def _file(self, path: Path, types: KnownTypes) -> CommaFile | JsonLines:
        if self.kind == "jsonl":
            return JsonLines(path, types)
        sign = self._reading.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
        return CommaFile(path, types) if sign == "," else DelimitedFile(path, types, sign)

    def names(self) -> list[str]:
        return list(self._names)

    def default_types(self) -> Mapping[str, ColumnType]:
        return self._defaults

    def unread(self) -> list[str]:
        return self._unread

    def refuse_change(self) -> None:
        for path, seen in self._seen.items():
            if signature(path) != seen:
                raise Changed(str(path))


def opened(path: Path, name: str, reading: Reading) -> FileSource:
    """The file or folder as a source; UserError if it is not one that can be read."""
    if path.is_dir():
        return _folder(path, name, reading)
    kind = "csv" if reading.delimiter else KINDS.get(path.suffix.lower())
    if kind is None:
        allowed = f"Read are {', '.join(KINDS)}, SQLite's files, and folders of them. {SAY}"
        raise UserError(f"{path} has a name that does not say what is in it.", allowed)
    return FileSource([path], name, kind, reading, [])


def _folder(folder: Path, name: str, reading: Reading) -> FileSource:
    shown = sorted(path for path in folder.iterdir() if not path.name.startswith((".", "_")))
    read = [path for path in shown if path.is_file() and path.suffix.lower() in KINDS]
    kinds = {KINDS[path.suffix.lower()] for path in read}
    if len(kinds) != 1:
        found = "files of several kinds" if kinds else f"no file that ends in {', '.join(KINDS)}"
        raise UserError(f"{folder} has {found}.", "Name one file, or a folder whose files are of one kind.")
    return FileSource(read, name, kinds.pop(), reading, [path.name for path in shown if path not in read])


def sign_of(text: str) -> str:
    """The delimiter that somebody means; UserError for what cannot be one."""
    sign = SIGNS.get(text.casefold(), text)
    if len(sign) != 1 or not sign.isascii() or sign.isalnum() or sign in "\"'\n\r.+-":
        allowed = f"Allowed: one sign, as ';', or a word of {some([*SIGNS])}."
        raise UserError(f"--delimiter is {text!r}, which cannot stand between cells.", allowed)
    return sign
