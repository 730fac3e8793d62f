"""What a stack file says of results: which files, how they are written, which types their columns have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ems.spool.batch import ColumnType
from ems.spool.endings import DELIMITERS, type_of
from ems.spool.kinds import DECLARED

NONE = "none"


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written. `delimiter`: one character, where " " stands for any run of blanks.

    `header`: the names of its columns, if the stack file says them. `foreign`: a program chose name and form, so that
    Python's literals are told apart from rows, and a first line may begin with `# `, as numpy writes it.
    """

    delimiter: str = ","
    header: tuple[str, ...] = ()
    foreign: bool = False


RFC = Dialect()


@dataclass(frozen=True)
class Declared:
    """The `results` of a stack file. `type`: of files whose names do not say it; "" where nothing is said."""

    files: tuple[str, ...] = ()
    type: str = ""
    delimiter: str = ""
    header: tuple[str, ...] = ()
    stdout: str = ""
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    none: bool = False

    @classmethod
    def of(cls, results: Mapping[str, Any] | str) -> Declared:
        """Of the spec's JSON; what was registered by an older EMS lacks keys."""
        if isinstance(results, str):
            return cls(none=True)
        form: Mapping[str, Any] = results.get("format") or {}
        words = {**results.get("columns", {}), **form.get("columns", {})}
        return cls(
            files=tuple(results.get("files", ())),
            type=form.get("type") or "",
            delimiter=form.get("delimiter") or "",
            header=tuple(form.get("header", ())),
            stdout=results.get("stdout") or "",
            columns={name: DECLARED[word] for name, word in words.items()},
        )

    def type_of(self, path: Path) -> str:
        """How a file of this name is read."""
        return type_of(path) or self.type

    def dialect(self, path: Path, *, foreign: bool) -> Dialect:
        """How a CSV file of this name is written."""
        return Dialect(self.delimiter or DELIMITERS.get(path.suffix.lower(), ","), self.header, foreign)
