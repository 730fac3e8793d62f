"""What is needed to make an environment, and where its archive lies: told to each job by a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ems.base import aside
from ems.base.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """`name`: as people know it. `digest`: of all that follows. `python`: MAJOR.MINOR[.PATCH]; with a + or newer.

    `lock`: requirements with hashes, as `uv pip sync` takes them.
    """

    name: str
    digest: str
    python: str
    lock: str

    def takes(self, version: tuple[int, ...]) -> bool:
        """Whether it can stand on a Python of this version, (MAJOR, MINOR, PATCH)."""
        wanted = tuple(int(number) for number in re.findall(r"\d+", self.python))
        return version >= wanted if self.python.endswith("+") else version[: len(wanted)] == wanted


@dataclass(frozen=True)
class Order:
    """What a job is told. `archives`, `scratch`: folders for archives, shared, and for what is unpacked, on a node;
    "": the node says where. `code`: EMS's own, a zip. `uv`: that of who submitted, where a node has no other.

    `variables`: of who submitted, for `uv` and Slurm's commands. `modules`: that are loaded.
    """

    agents: Recipe
    experiment: Recipe
    archives: str
    scratch: str
    code: str
    uv: str
    variables: Mapping[str, str]
    modules: tuple[str, ...] = ()

    def write(self, file: Path) -> None:
        """For jobs of the same user alone: variables may hold a password of a package index."""
        file.touch(mode=0o600)
        with aside.writing(file) as part:
            part.touch(mode=0o600)
            part.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @staticmethod
    def read(file: Path) -> Order:
        """UserError if there is none, or one of another version of EMS."""
        try:
            said: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            said |= {key: Recipe(**said[key]) for key in ("agents", "experiment")}
            return Order(**{**said, "modules": tuple(said["modules"])})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{file} does not describe environments: {error}.", "`ems up STACK` writes it.") from error
