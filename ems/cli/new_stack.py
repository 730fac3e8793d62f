"""The stack file of an experiment whose code exists: only what is not there yet is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ems.base.errors import UserError
from ems.cli import new_description as descriptions
from ems.cli import new_function as functions
from ems.cli import new_program as programs
from ems.cli import new_roots, scaffold
from ems.cli import yaml_text as text
from ems.cli.adopting import MAIN
from ems.lab import Lab
from ems.lab.place import repository_of
from ems.provenance import environment, existing

FUNCTION_BLANK = f"function:  {functions.FILL_IN}: what is called with these names, as module:name"


class Job(Protocol):
    """What `job:` of a stack file says."""

    def lines(self, indent: int) -> list[str]:
        """Its lines, with `indent` spaces."""


@dataclass(frozen=True)
class Described:
    """A grid that a file describes, and the function that it is for; "" where people have to name it."""

    function: str
    grid: descriptions.Description

    def lines(self, indent: int) -> list[str]:
        """Of `job:` in a stack file."""
        called = f"function: {self.function}" if self.function else FUNCTION_BLANK
        return [f"{' ' * indent}{called}", *self.grid.lines(indent)]


@dataclass(frozen=True)
class Written:
    """The files that were written, and sentences that people should read."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...]


def of_command(lab: Lab, name: str, line: str) -> Written:
    """A stack file for a program that exists, started by `line`; UserError as of `programs.read`."""
    program = programs.read(line, lab.root, Path.cwd())
    script = next((word for word in program.words if (lab.root / word).is_file()), "")
    notes = (f"Give values to {', '.join(program.blanks)}.",) if program.blanks else ()
    env = new_roots.of_program(lab.root, program.words) | program.env
    return _write(lab, name, program, env=env, files=True, code=script, notes=notes)


def of_function(lab: Lab, name: str, function: str) -> Written:
    """A stack file for a function that exists, module:name; UserError as of `functions.read`."""
    called = functions.read(function, lab.root)
    blank = [axis.name for axis in called.axes if axis.values is None]
    notes = (f"Give values to what has no default: {', '.join(blank)}.",) if blank else ()
    env = new_roots.of_function(lab.root, called.file, function.partition(":")[0])
    return _write(lab, name, called, env=env, notes=notes, code=called.file.relative_to(lab.root).as_posix())


def of_file(lab: Lab, name: str, file: Path, function: str = "") -> Written:
    """A stack file for an experiment that a JSON file of the first implementation describes.

    UserError as of `descriptions.read`; as of `functions.read`, or if the function does not take the names.
    """
    grid = descriptions.read(file)
    table = descriptions.table(grid.table)
    notes = [f"The table {grid.table} is called {table} here."] if table != grid.table else []
    env: dict[str, str] = {}
    if function:
        called = functions.read(function, lab.root)
        env = new_roots.of_function(lab.root, called.file, function.partition(":")[0])
        known = {axis.name for axis in called.axes}
        for axis in sorted({axis for each in grid.grids for axis in each} - known):
            raise UserError(f"{function} has no parameter {axis}, which {file.name} has.", "Name another function.")
    else:
        notes.append("Name the function that computes a point, as job.function.")
    return _write(lab, name, Described(function, grid), table=table, env=env, notes=tuple(notes))


def _write(
    lab: Lab,
    name: str,
    job: Job,
    *,
    table: str = "",
    env: dict[str, str] | None = None,
    files: bool = False,
    code: str = "",
    notes: Sequence[str] = (),
) -> Written:
    values = scaffold.values(lab, name)
    packages, files_of_environment, more = _environment(lab, name)
    lines = [
        "config:",
        "  ems:experiment:",
        f"    title: {name}",
        *(f"    {key}: {values[key]}" for key in ("project", "experimenter", "funding")),
        *packages,
        *((CODE, f"    # code: {{paths: [{text.word(code)}]}}") if code else ()),
        "    job:",
        *job.lines(6),
        *(["    env:", *(f"      {key}: {_quoted(value)}" for key, value in env.items())] if env else []),
        "    results:",
        f"      table: {table or values['table']}",
        *(RESULTS_FILES if files else ()),
        "    cluster:",
        "      kind: laptop",
        "    limits:",
        "      max_hours: 1",
    ]
    made = {lab.root / path: content for path, content in files_of_environment.items()}
    paths = scaffold.write(lab.root, {lab.stack_file(name): "\n".join([*lines, ""]), **made})
    return Written(tuple(paths), (*notes, *more))


CODE = "    # The code is the whole repository, and a change of it another experiment, unless only these paths count:"
RESULTS_FILES = ("      # Files of the program's own names, where it does not write into $EMS_RESULTS_DIR:",
                 "      # files: [results.csv]")  # fmt: skip


def _quoted(value: str) -> str:
    found = text.word(value)
    return found if found.startswith('"') else f'"{found}"'


def _environment(lab: Lab, name: str) -> tuple[list[str], dict[str, str], tuple[str, ...]]:
    """The lines of the stack file, files to be made, and what is to be said."""
    if lines := lock_lines(lab.root):
        return lines, {}, ()
    names, found = environment.names(lab.root), existing.find(lab.root, repository_of(lab.root))
    if MAIN in names or found.wishes:
        way = f"ems env lock {MAIN} --from {found.wishes}"
        notes = () if MAIN in names else (f"The environment {MAIN} is not there yet: {way}",)
        return [f"    environment: {MAIN}"], {}, notes
    notes = (f"{found.unlocked} has no lock: `uv lock` writes one; then environment: {{lock: uv.lock}}",)
    texts = scaffold.environment_texts(lab.root, name)
    texts = {path: content for path, content in texts.items() if not (lab.root / path).exists()}
    return [f"    environment: {name}"], texts, notes if found.unlocked else ()


def lock_lines(root: Path) -> list[str]:
    """`environment:` of a stack file, where the repository has a lock; [] where it has none."""
    found = existing.find(root, repository_of(root))
    if not found.lock:
        return []
    python = f', python: "{found.python}"' if found.python else ""
    lines = [f"    environment: {{lock: {text.word(found.lock)}{python}}}"]
    besides = [
        f"{key}: {text.listed(names)}" for key, names in (("groups", found.groups), ("extras", found.extras)) if names
    ]
    return [*lines, f"    # It has besides {' and '.join(besides)}"] if besides else lines
