"""The lab: the repository whose `Pulumi.yaml` names it, its id and its database."""

from __future__ import annotations

import os
import re
import shlex
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ems import databases, stores
from ems.base.errors import Fault, NoTables, StackFileError, StoreUnavailable, UserError
from ems.base.messages import Say, counted, nearest, quiet, show
from ems.base.threads import Threads
from ems.lab import project
from ems.stack import yamlfile
from ems.stack.keys import PROJECT_KEYS, dotted, placed

DEFAULT_DATABASE = "sqlite:///.ems/ems.db"
HINT = "A lab's Pulumi.yaml has `name` and `config: {ems:lab_id: {value: UUID}}`; `ems init DIR` writes one."
MOVED = {  # names that every lab's repository contains, as they were and as they are
    "plugins/pulumi-resource-ems": ("ems.provider", "ems.engine.provider"),
    "stacks/__main__.py": ("ems.program", "ems.engine.program"),
}

STORE_S, TOLD_S = 45.0, 3.0  # for the lab's store to answer, until somebody is told of it
_ready_stores: set[tuple[Path, str]] = set()
_held: ContextVar[tuple[Lab, databases.Database] | None] = ContextVar("_held", default=None)  # of one thread


@dataclass(frozen=True)
class Lab:
    """A lab as its `Pulumi.yaml` describes it. Relative paths in the URLs are taken from `root`."""

    root: Path
    name: str
    id: uuid.UUID
    database_url: str
    store_url: str = stores.DEFAULT

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

    def strays(self) -> dict[Path, Path]:
        """Files that look like stack files and are read by nobody, with where they would be read."""
        found = sorted([*self.stacks_dir.glob("Pulumi.*.*"), *self.root.glob("Pulumi.*.*")])
        names = {file: re.fullmatch(r"Pulumi\.(.*)\.(yaml|yml|json)", file.name) for file in found}
        meant = {file: self.stack_file(name[1]) for file, name in names.items() if name}
        return {file: right for file, right in meant.items() if file != right}

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

    def require(self) -> None:
        """UserError, with all faults, unless Pulumi can work here: `Pulumi.yaml`, program, plugin."""
        project.refuse(self.root)
        self.plugin()

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

    def store(self) -> stores.Store:
        """The lab's store of files. Nothing is made or asked yet; UserError as of `database`."""
        return stores.connect(self.store_url, self.root)

    def make_store_ready(self, say: Say = quiet) -> None:
        """Make sure, once in this process, that the store can be written and read. StoreError if not.

        StoreUnavailable after STORE_S also if it says nothing; `say` hears that it is waited for.
        """
        known = (self.root, self.store_url)
        if known in _ready_stores:
            return
        store = self.store()
        ready = Threads().submit(store.make_ready)
        if not wait([ready], TOLD_S).done:
            say(f"waiting for the store {store.name}")
        if not wait([ready], STORE_S).done:
            raise StoreUnavailable(
                f"{store.name} did not answer within {STORE_S:g} s.", "Is it reached from this machine? Then repeat it."
            )
        ready.result()
        _ready_stores.add(known)

    @contextmanager
    def database(self) -> Iterator[databases.Database]:
        """The lab's database, closed at the end of the block. Nothing is created or read yet.

        UserError if its URL names an unknown kind of database, or a package that it needs is not installed. NoTables
        says so where runs of this folder are known, which the database has lost.
        """
        held = _held.get()
        known = nullcontext(held[1]) if held and held[0] == self else None
        with known or closing(databases.connect(self.database_url, self.root)) as database:
            try:
                yield database
            except NoTables as error:
                runs = len(list((self.work_dir / "runs").glob("*/")))
                if not runs:
                    raise
                message = f"{error.message} But {counted(runs, 'run')} of this folder were in one."
                hint = "Restore a copy of that; or begin anew, without them: ems up lab"
                raise NoTables(message, hint) from error

    @contextmanager
    def one_database(self) -> Iterator[None]:
        """Within the block, `database` gives all the same one, which stays open: for many questions in this thread."""
        with self.database() as database:
            token = _held.set((self, database))
            try:
                yield
            finally:
                _held.reset(token)


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
    """The lab whose `Pulumi.yaml` stands in `root`; UserError if it is missing or does not say which lab it is.

    What else may be wrong with the file, `Lab.require` tells.
    """
    file = root / "Pulumi.yaml"
    try:
        content, located = yamlfile.read(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).", HINT) from error
    except StackFileError as error:
        raise StackFileError(error.faults, HINT) from error
    found = list(_faults(content))
    if found or not isinstance(content, dict):
        lines = {dotted(at): line for at, line in located.items()}
        raise StackFileError(placed(found, file, lines), HINT)
    config = content["config"]
    database = _value(config.get("ems:database", DEFAULT_DATABASE))
    store = _value(config.get("ems:store", stores.DEFAULT))
    return Lab(root, content["name"], uuid.UUID(str(_value(config["ems:lab_id"]))), database, store)


def _faults(project: object) -> Iterator[Fault]:
    if not isinstance(project, dict):
        yield Fault("", f"is {show(project)}: allowed is a mapping")
        return
    if not isinstance(project.get("name"), str) or not project["name"]:
        yield Fault("name", f"is {show(project.get('name'))}: allowed is text")
    config = project.get("config") or {}
    if not isinstance(config, dict):
        yield Fault("config", f"is {show(config)}: allowed is a mapping")
        return
    for key in config:
        if key.startswith("ems:") and key not in PROJECT_KEYS:
            yield Fault(f"config.{dotted((key,))}", f"is not a key here: {nearest(key, PROJECT_KEYS)}")
    lab_id, database = _value(config.get("ems:lab_id")), _value(config.get("ems:database", DEFAULT_DATABASE))
    if not _is_uuid(lab_id):
        yield Fault("config.ems:lab_id", f"is {show(lab_id)}: allowed is a UUID")
    if not isinstance(database, str):
        yield Fault("config.ems:database", f"is {show(database)}: allowed is a URL, as {DEFAULT_DATABASE}")
    store = _value(config.get("ems:store", stores.DEFAULT))
    if not isinstance(store, str) or not store:
        yield Fault("config.ems:store", f"is {show(store)}: allowed is a folder or a URL, as {stores.DEFAULT}")


def _is_uuid(value: object) -> bool:
    try:
        return bool(uuid.UUID(str(value)))
    except ValueError:
        return False


def _value(setting: Any) -> Any:
    return setting.get("value") if isinstance(setting, dict) else setting
