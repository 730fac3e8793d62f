"""The files that jobs left, as notebooks have them: each is brought from the lab's store when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, SupportsIndex, overload

from ems.base.cache import cache_dir
from ems.base.errors import UserError
from ems.base.messages import nearest, plain
from ems.databases import Output
from ems.lab import Lab
from ems.lab.outputs import Target, bring
from ems.node.agent.tidying import size
from ems.views.outputs import total

MOST_SHOWN = 50


@dataclass(frozen=True, repr=False)
class OutputFile:
    """One file. `name`: its path below the folder of EMS_OUTPUT_DIR; `point`: that left it, 0 of a command.

    `digest`: SHA-256 of its content; `size` in bytes; `attempt`: the run that stored it.
    """

    name: str
    point: int
    digest: str
    size: int
    media_type: str
    attempt: int
    _lab: Lab
    _brought: Path | None

    @property
    def path(self) -> Path:
        """The file on this machine: brought once into the user's cache, read-only, or into the folder that was named.

        StoreError if the store does not have it, or one that is damaged.
        """
        return self._brought or self._cached()

    def _cached(self) -> Path:
        path = cache_dir() / "outputs" / self.digest / Path(self.name).name
        if not (path.exists() and path.stat().st_size == self.size):
            bring(self._lab.store(), self._output(), path)
            path.chmod(0o444)
        return path

    def _output(self) -> Output:
        return Output(self.point, self.name, self.digest, self.size, self.media_type, self.attempt)

    def read_bytes(self) -> bytes:
        """Its content; errors as of `path`."""
        return self.path.read_bytes()

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"<{plain(self.name)} of point {self.point:,}, {size(self.size)}, {self.media_type}>"


class OutputFiles(tuple[OutputFile, ...]):
    """All files of an experiment, by number, or by name: of several points, that of the first one."""

    @overload
    def __getitem__(self, key: SupportsIndex | str, /) -> OutputFile: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[OutputFile, ...]: ...
    def __getitem__(self, key: SupportsIndex | slice | str, /) -> Any:
        """UserError for a name that there is not."""
        if not isinstance(key, str):
            return super().__getitem__(key)
        found = next((file for file in self if file.name == key), None)
        if found is None:
            raise UserError(f"{key!r} is not an output here: {nearest(key, {file.name for file in self})}.")
        return found

    def __repr__(self) -> str:
        return "\n".join([total(self), *map(repr, self[:MOST_SHOWN]), *(["…"] if len(self) > MOST_SHOWN else [])])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{file.point:,}</td><td>{escape(file.name)}</td><td>{size(file.size)}</td>"
            f"<td>{escape(file.media_type)}</td></tr>"
            for file in self[:MOST_SHOWN]
        )
        head = "<tr><th>point</th><th>file</th><th>size</th><th>type</th></tr>"
        return f"{escape(total(self))}<table>{head}{rows}</table>"


def files_of(lab: Lab, found: Sequence[Output], brought: Sequence[Target]) -> OutputFiles:
    """The files; `brought`: those that have a place on this machine."""
    paths = {id(target.output): target.path for target in brought}
    return OutputFiles(OutputFile(**asdict(each), _lab=lab, _brought=paths.get(id(each))) for each in found)
