"""Which types of results files there are, and what the ending of a name says of it.

Standard library alone, Python 3.9 or newer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Union

TYPES = ("csv", "jsonl", "parquet", "npz", "rds")
ENDINGS: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".npz": "npz",
    ".rds": "rds",
}
IN_FOLDER = frozenset({".csv", ".jsonl", ".ndjson", ".parquet"})  # read in the results folder without being named
DELIMITERS: Mapping[str, str] = {".tsv": "\t"}  # of CSV files, where it is not a comma
RESULTS = "{results}/"  # before a pattern of files in the results folder


def type_of(name: Union[str, PurePath]) -> str:  # noqa: UP007  (Python 3.9)
    """What the ending says, in upper or lower case; "" if it says nothing."""
    return ENDINGS.get(PurePath(name).suffix.lower(), "")
