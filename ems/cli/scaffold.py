"""New labs and new experiments, from the files in `ems/templates/`."""

from __future__ import annotations

import importlib.resources
import json
import re
import sys
import unicodedata
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from ems import lab as laboratory
from ems.base.errors import UserError
from ems.base.process import run
from ems.engine import install as engine
from ems.lab import Lab
from ems.lab.person import setting
from ems.stack import stackfile
from ems.stack.fields import RESERVED_TABLES
from ems.stack.models import LabSpec

FIRST = "pi"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
EXECUTABLE = "pulumi-resource-ems"
SALT = "encryptionsalt: v1:qSnmwQPN9XA=:v1:b+ZOZIC4jskYy4st:ht9jFIH45PBrBmgflyB4U5YjvxTmZA==\n"
"""What Pulumi would add to a stack file, made for the empty passphrase, with which EMS runs it unless there is another.

It hides nothing then, so one does for all stacks, and is committed with them.
"""


def init(directory: Path, name: str = "") -> Lab:
    """A lab in a new or empty folder: a git repository whose first commit holds the experiment `pi`.

    Named like the folder, as far as Pulumi allows such names. UserError if the folder or the name will not do.
    """
    root = directory.expanduser().resolve()
    name = lab_name(root, name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        empty = not any(root.iterdir())
    except OSError as error:
        raise UserError(f"{root} cannot be made: {error.strerror}.", "Choose another: ems init DIR") from error
    if not empty:
        raise UserError(f"{root} is not empty.", "Choose another: ems init DIR")
    begin_repository(root)
    _write("lab", root, lab_values(root, name))
    made = laboratory.read(root)
    new(made, FIRST)
    _commit(root, (setting(root, "user.name"), setting(root, "user.email")))
    return made


def begin_repository(root: Path) -> None:
    """An empty git repository in `root`."""
    run(["git", "init", "--quiet", "--initial-branch", "main", root])


def lab_name(root: Path, name: str = "") -> str:
    """The name of a lab in `root`: the given one, or one like the folder's; UserError if it will not do."""
    name = name or _name_of(root)
    _refuse_bad_name(name, "a lab", "ems init DIR --name NAME")
    return name


def lab_values(root: Path, name: str) -> dict[str, str]:
    """What the files of a new lab are filled in with; the person is the one that git knows in `root`."""
    person = setting(root, "user.name"), setting(root, "user.email")
    return {
        "lab": name,
        "lab_id": str(uuid.uuid4()),
        "person": _yaml(person[0] or Path.home().name or "me"),
        "email": _yaml(person[1]),
    }


def _yaml(text: str) -> str:
    """One line of printable text, quoted."""
    return json.dumps("".join(letter for letter in text if letter.isprintable()), ensure_ascii=False)


def new(lab: Lab, name: str, environment: Sequence[str] = ()) -> list[Path]:
    """The files of a new experiment, which runs as it is; UserError if one of them is there already.

    `environment`: lines of the stack file that name one which is there; without them one is made.
    """
    made = texts("experiment", lab.root, values(lab, name))
    if environment:
        stack, own = lab.stack_file(name), lab.root / "environments"
        made[stack] = made[stack].replace(f"    environment: {name}", "\n".join(environment))
        made[stack] = re.sub(r"    code:\n +paths: .*\n", "", made[stack])  # the lock may install the repository itself
        made = {path: text for path, text in made.items() if not path.is_relative_to(own)}
    return write(lab.root, made)


def values(lab: Lab, name: str) -> dict[str, str]:
    """What the files of a new experiment are filled in with; UserError if it cannot have that name."""
    _refuse_bad_name(name, "an experiment", "ems new NAME")
    if alike := [other for other in lab.stacks() if other.casefold() == name.casefold() and other != name]:
        raise UserError(
            f"There is already {alike[0]}, which differs only by case.", "Choose another name: ems new NAME"
        )
    described = _lab_spec(lab)
    return {
        "name": name,
        "table": _table(name),
        "python": PYTHON,
        "experimenter": next(iter(described.experimenters)),
        "project": next(iter(described.projects)),
        "funding": next(iter(described.funding)),
    }


def environment_texts(root: Path, name: str) -> dict[str, str]:
    """The files of a new environment without packages, by their paths from the lab's folder."""
    values = dict.fromkeys(("table", "project", "experimenter", "funding"), "") | {"name": name, "python": PYTHON}
    made = {str(path.relative_to(root)): text for path, text in texts("experiment", root, values).items()}
    return {path: text for path, text in made.items() if path.startswith("environments/")}


def _name_of(root: Path) -> str:
    """The folder's name without accents and what else a lab's name must not have."""
    ascii_only = unicodedata.normalize("NFKD", root.name).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_only).strip("-")
    return (name if name[:1].isalpha() else f"lab-{name}".strip("-"))[:50]


def _refuse_bad_name(name: str, what: str, command: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of {what}.",
            f"Allowed: up to 50 letters, digits, - and _, beginning with a letter: {command}",
        )


def _table(name: str) -> str:
    table = name.lower().replace("-", "_")[:40]
    return f"results_{table}" if table in RESERVED_TABLES or table.startswith(("sqlite_", "pg_")) else table


def _lab_spec(lab: Lab) -> LabSpec:
    path = lab.stack_file("lab")
    described = stackfile.load(path)
    if not isinstance(described, LabSpec):
        raise UserError(f"{path} does not describe an `ems:lab`.", "See `ems schema`.")
    return described


def _salt(root: Path) -> str:
    """What stack files of the lab end with, so that Pulumi changes none; "" where the lab has secrets of its own."""
    env = engine.settings(root)
    is_empty = env.get("PULUMI_CONFIG_PASSPHRASE") == "" and "PULUMI_CONFIG_PASSPHRASE_FILE" not in env
    return SALT if is_empty and env.get("PULUMI_BACKEND_URL", "").startswith("file://") else ""


def texts(template: str, root: Path, values: Mapping[str, str]) -> dict[Path, str]:
    """The template's files, filled in; a folder or file called `NAME` or `dot-X` gets its real name."""
    source = Path(str(importlib.resources.files("ems.cli") / "templates" / template))
    return {
        root / _real_name(file.relative_to(source), values): Template(file.read_text(encoding="utf-8")).substitute(
            values
        )
        for file in sorted(source.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    }


def _write(template: str, root: Path, values: Mapping[str, str]) -> list[Path]:
    return write(root, texts(template, root, values))


def write(root: Path, texts: Mapping[Path, str]) -> list[Path]:
    """Write new files of the lab in `root`; UserError, and none is written, if one of them is there already."""
    existing = [str(path.relative_to(root)) for path in texts if path.exists()]
    if existing:
        raise UserError(f"There is already {', '.join(existing)}.", "Choose another name: ems new NAME")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        salt = _salt(root) if path.match("stacks/Pulumi.*.yaml") else ""
        path.write_text(text + salt, encoding="utf-8")
        if path.name == EXECUTABLE:
            path.chmod(0o755)
    return list(texts)


def _real_name(path: Path, values: Mapping[str, str]) -> str:
    return str(path).replace("NAME", values.get("name", "")).replace("dot-", ".")


def _commit(root: Path, person: tuple[str, str]) -> None:
    """The first commit, by the person git knows, else by EMS; without hooks and signatures, which ask for more."""
    name, email = person if all(person) else ("EMS", "ems@localhost")
    git = ["git", "-C", str(root), "-c", f"user.name={name}", "-c", f"user.email={email}"]
    run([*git, "add", "--all"])
    run([*git, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", "Begin the lab"])
