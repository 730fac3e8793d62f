"""New labs and new experiments, from the files in `ems/templates/`."""

from __future__ import annotations

import importlib.resources
import json
import re
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from string import Template

import git

from ems import lab as laboratory
from ems import stackfile
from ems.errors import UserError
from ems.lab import Lab
from ems.spec import LabSpec

FIRST = "pi"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,49}")
EXECUTABLE = "pulumi-resource-ems"


def init(directory: Path, name: str) -> Lab:
    """A lab in a new or empty folder: a git repository whose first commit holds the experiment `pi`."""
    root = directory.expanduser().resolve()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} is not an empty folder.", "Choose another: ems init DIR")
    _refuse_bad_name(name, "lab")
    root.mkdir(parents=True, exist_ok=True)
    repository = git.Repo.init(root, initial_branch="main")
    with repository.config_reader() as config:
        person = str(config.get_value("user", "name", "")), str(config.get_value("user", "email", ""))
    name_and_email = json.dumps(person[0] or Path.home().name), json.dumps(person[1])
    values = {"lab": name, "lab_id": str(uuid.uuid4()), "person": name_and_email[0], "email": name_and_email[1]}
    _write("lab", root, values)
    made = laboratory.read(root)
    new(made, FIRST)
    _commit(repository, person)
    return made


def new(lab: Lab, name: str) -> list[Path]:
    """The files of a new experiment, which runs as it is; UserError if one of them is there already."""
    _refuse_bad_name(name, "experiment")
    described = _lab_spec(lab)
    values = {
        "name": name,
        "table": name.lower().replace("-", "_"),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "experimenter": next(iter(described.experimenters)),
        "project": next(iter(described.projects)),
        "funding": next(iter(described.funding)),
    }
    return _write("experiment", lab.root, values)


def _refuse_bad_name(name: str, what: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of a {what}.",
            "Allowed: up to 50 letters, digits, - and _, beginning with a letter.",
        )


def _lab_spec(lab: Lab) -> LabSpec:
    path = lab.stack_file("lab")
    described = stackfile.load(path)
    if not isinstance(described, LabSpec):
        raise UserError(f"{path} does not describe an `ems:lab`.", "See `ems schema`.")
    return described


def _write(template: str, root: Path, values: Mapping[str, str]) -> list[Path]:
    """Fill in the template's files; a folder or file called `NAME` or `dot-X` gets its real name."""
    source = Path(str(importlib.resources.files("ems") / "templates" / template))
    texts = {
        root / _real_name(file.relative_to(source), values): file.read_text(encoding="utf-8")
        for file in sorted(source.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    }
    existing = [str(path.relative_to(root)) for path in texts if path.exists()]
    if existing:
        raise UserError(f"There is already {', '.join(existing)}.", "Choose another name.")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(values), encoding="utf-8")
        if path.name == EXECUTABLE:
            path.chmod(0o755)
    return list(texts)


def _real_name(path: Path, values: Mapping[str, str]) -> str:
    return str(path).replace("NAME", values.get("name", "")).replace("dot-", ".")


def _commit(repository: git.Repo, person: tuple[str, str]) -> None:
    """The first commit, by the person git knows, else by EMS."""
    author = git.Actor(*(person if all(person) else ("EMS", "ems@localhost")))
    repository.git.add(all=True)
    repository.index.commit("Begin the lab", author=author, committer=author)
