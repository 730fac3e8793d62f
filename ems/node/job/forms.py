"""The forms of results files, by the words of stack files."""

from __future__ import annotations

from pathlib import Path

from ems.node.job.columns import KnownTypes
from ems.node.job.csv_file import CsvFile
from ems.node.job.declared import RFC, Dialect
from ems.node.job.json_file import JsonLinesFile
from ems.node.job.npz_file import NpzFile
from ems.node.job.parquet_file import ParquetFile
from ems.node.job.rds_file import RdsFile
from ems.node.job.results_file import ResultsFile
from ems.node.job.table_file import TableFile

TABLES: dict[str, type[ParquetFile] | type[TableFile]] = {"parquet": ParquetFile, "npz": NpzFile, "rds": RdsFile}
TEXTS: dict[str, type[CsvFile] | type[JsonLinesFile]] = {"csv": CsvFile, "jsonl": JsonLinesFile}


def made(form: str, path: Path, types: KnownTypes, dialect: Dialect = RFC) -> ResultsFile:
    """A file of this form (`ems.spool.endings.TYPES`), to be read."""
    return TABLES[form](path, types) if form in TABLES else TEXTS[form](path, types, dialect)
