"""The lab: the repository whose `Pulumi.yaml` names it, its id and its database."""

from __future__ import annotations

import os
import re
import shlex
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ems import databases
from ems.base.errors import UserError
from ems.base.messages import nearest, show

DEFAULT_DATABASE = "sqlite:///.ems/ems.db"
KEYS = ("ems:lab_id", "ems:database")  # of `config:` in Pulumi.yaml
MOVED = {  # names that every lab's repository contains, as they were and as they are
    "plugins/pulumi-resource-ems": ("ems.provider", "ems.engine.provider"),
    "stacks/__main__.py": ("ems.program", "ems.engine.program"),
}


@dataclass(frozen=True)
class Lab:
    """A lab as its `Pulumi.yaml` describes it. `database_url`: relative paths in it are taken from `root`."""

    root: Path
    name: str
    id: uuid.UUID
    database_url: str

    @property
    def work_dir(self) -> Path:
        """Where EMS keeps what can be lost: bundles, run folders, the default database and state."""
        return self.root / ".ems"

    @property
    def stacks_dir(self) -> Path:
        """The folder of the stack files."""
        return self.root / "stacks"

    def stack_file(self, stack: str) -> Path:
        """Where the file of a stack is, or would be."""
        return self.stacks_dir / f"Pulumi.{stack}.yaml"

    def stacks(self) -> list[str]:
        """Names of all stacks with a stack file, sorted."""
        files = self.stacks_dir.glob("Pulumi.*.yaml")
        return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files)

    def some_stacks(self) -> list[str]:
        """Names of all stacks; UserError if there is none."""
        if stacks := self.stacks():
            return stacks
        raise UserError(f"{self.stacks_dir} has no stack file.", "Names are Pulumi.STACK.yaml. Make one: ems new NAME")

    def known(self, stacks: Sequence[str]) -> list[str]:
        """`stacks`, each of which has a stack file; else UserError."""
        there = self.stacks()
        for stack in stacks:
            if stack not in there:
                raise UserError(
                    f"There is no stack {stack!r}: {nearest(stack, there)}.",
                    f"Its file would be {self.stack_file(stack).relative_to(self.root)}; `ems new {stack}` makes one.",
                )
        return list(stacks)

    def plugin(self) -> Path:
        """The program by which Pulumi finds EMS's provider.

        UserError if it is not there, or if it or the lab's Pulumi program is of an EMS before 0.1.
        """
        shim = self.root / "plugins" / "pulumi-resource-ems"
        if not os.access(shim, os.X_OK):
            raise UserError(
                f"{shim} is missing or not executable: Pulumi finds EMS by it.",
                f"git -C {shlex.quote(str(self.root))} checkout HEAD -- plugins",
            )
        for file, (before, now) in MOVED.items():
            self._refuse_moved(self.root / file, before, now)
        return shim

    def _refuse_moved(self, path: Path, before: str, now: str) -> None:
        if path.is_file() and re.search(
            rf"\b{re.escape(before)}\b", path.read_text(encoding="utf-8", errors="replace")
        ):
            quoted = shlex.quote(str(path))
            raise UserError(
                f"{path} names `{before}`, which is now `{now}`.",
                f"Replace it there, and commit: sed -i.bak 's/{before}/{now}/' {quoted} && rm {quoted}.bak",
            )

    def run_dir(self, experiment_id: str) -> Path:
        """The folder of one experiment's runs on this machine: log, results files, spool."""
        return self.work_dir / "runs" / experiment_id

    @contextmanager
    def database(self) -> Iterator[databases.Database]:
        """The lab's database, closed at the end of the block. Nothing is created or read yet.

        UserError if its URL names an unknown kind of database, or a package that it needs is not installed.
        """
        with closing(databases.connect(self.database_url, self.root)) as database:
            yield database


def find(start: Path | None = None) -> Lab:
    """The lab that `start` (default: the working directory) lies in; UserError if it lies in none, or as of `read`."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return read(folder)
    raise UserError(
        f"{here} is not in a lab: no Pulumi.yaml here or above.",
        "Go to your lab's repository, or make one: ems init DIR",
    )


def read(root: Path) -> Lab:
    """The lab whose `Pulumi.yaml` stands in `root`; UserError if it is missing or not valid."""
    file = root / "Pulumi.yaml"
    try:
        project = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise _no_lab(file, f"cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise _no_lab(file, f"is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise _no_lab(file, f"is not YAML{line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise _no_lab(file, f"is not YAML: {error}") from error
    if not isinstance(project, dict):
        raise _no_lab(file, f"is {show(project)}: allowed is a mapping")
    return _lab(file, project)


def _lab(file: Path, project: dict[str, Any]) -> Lab:
    name, config = project.get("name"), project.get("config") or {}
    if not isinstance(config, dict):
        raise _no_lab(file, f"has as `config` {show(config)}: allowed is a mapping")
    if not isinstance(name, str) or not name:
        raise _no_lab(file, f"has as `name` {show(name)}: allowed is text")
    for key in config:
        if str(key).startswith("ems:") and key not in KEYS:
            raise _no_lab(file, f"has the unknown key {show(key)}: {nearest(str(key), KEYS)}")
    lab_id, database = _value(config.get("ems:lab_id")), _value(config.get("ems:database", DEFAULT_DATABASE))
    if not isinstance(database, str):
        raise _no_lab(file, f"has as `ems:database` {show(database)}: allowed is a URL, as {DEFAULT_DATABASE}")
    try:
        return Lab(file.parent, name, uuid.UUID(str(lab_id)), database)
    except ValueError as error:
        raise _no_lab(file, f"has as `ems:lab_id` {show(lab_id)}: allowed is a UUID") from error


def _no_lab(file: Path, problem: str) -> UserError:
    hint = "A lab's Pulumi.yaml has `name` and `config: {ems:lab_id: {value: UUID}}`; `ems init DIR` writes one."
    return UserError(f"{file} {problem}.", hint)


def _value(setting: Any) -> Any:
    return setting.get("value") if isinstance(setting, dict) else setting
