"""`ems init` where a repository is: what a lab adds to it, what is there already, and what is in the way."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ems import lab as laboratory
from ems.base.errors import ProvenanceError, UserError
from ems.cli import scaffold
from ems.lab import Lab
from ems.lab.place import is_ignored, lab_above, repository_of
from ems.provenance import building, environment, existing
from ems.provenance.existing import Existing

MAIN = "main"  # the environment that is made of requirements.txt and the like
IGNORED = ".ems/"
OF_EMS = {  # how a file that a lab needs is known for EMS's own
    "Pulumi.yaml": r"ems:lab_id",
    "stacks/__main__.py": r"\bems\.(engine\.)?program\b",
    "plugins/pulumi-resource-ems": r"\bems\.(engine\.)?provider\b",
    "stacks/Pulumi.lab.yaml": r"ems:lab\b",
}
FOLDERS = ("stacks", "plugins", "environments")


@dataclass(frozen=True)
class Plan:
    """What `ems init` would do in `root`. `top`: of its repository; None: git is to begin one in `root`.

    `texts`: new files; `ignore`: lines for .gitignore; `lock`: an environment to be locked; `there`: files of the lab
    that are there already; `notes`: sentences that people should read.
    """

    root: Path
    top: Path | None
    texts: dict[Path, str]
    ignore: tuple[str, ...]
    lock: str
    there: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be added."""
        return not (self.texts or self.ignore or self.lock)

    def lines(self) -> list[str]:
        """What would be added, a line each."""
        git = [] if self.top else [f"git init {shlex.quote(str(self.root))}"]
        names = [_seen(self.root, path) for path in sorted(self.texts)]
        ignore = [f".gitignore: the line {line}" for line in self.ignore]
        lock = [f"environments/{self.lock}/requirements.txt: what the package index has now"] if self.lock else []
        return [*git, *names, *ignore, *lock]


def is_new(root: Path) -> bool:
    """Whether a lab in `root` is a repository of its own: the folder is empty or not there, and lies in none."""
    return repository_of(root) is None and not (root.is_dir() and any(root.iterdir()))


def plan(root: Path, name: str = "") -> Plan:
    """What is to be added for a lab in `root`; UserError if names are taken, or `root` is in another lab already."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is not a folder.", "Name the folder of your code: ems init DIR")
    top = repository_of(root)
    if top and (above := lab_above(root, top)):
        hint = f"Work there: cd {shlex.quote(str(above))}; a lab beside it is made by: ems init DIR"
        raise UserError(f"{root} is in the lab {above} already.", hint)
    name = scaffold.lab_name(root, name)
    wanted = {
        _seen(root, path): text
        for path, text in scaffold.texts("lab", root, scaffold.lab_values(top or root, name)).items()
        if path.name not in {"README.md", ".gitignore"}
    }
    _refuse_taken(root, wanted)
    there = tuple(path for path in wanted if (root / path).exists())
    found = existing.find(root, top)
    texts, notes = _environment(root, found)
    new = {root / path: text for path, text in (wanted | texts).items() if not (root / path).exists()}
    ignore = () if top and is_ignored(top, root / ".ems" / "x") else (IGNORED,)
    hidden = [_seen(root, path) for path in new if top and is_ignored(top, path)]
    if hidden:
        notes += (f"git ignores {', '.join(hidden)}, so add them by: git add --force",)
    return Plan(root, top, new, ignore, _to_lock(root, found, new), there, notes)


def _seen(root: Path, path: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix()


def _refuse_taken(root: Path, wanted: dict[str, str]) -> None:
    taken = list(_taken(root, wanted))
    if taken:
        below = shlex.quote(str(root / "lab"))
        hint = f"Rename what is in the way, or make the lab in a folder of its own: ems init {below}"
        raise UserError("\n".join(taken), hint)


def _taken(root: Path, wanted: dict[str, str]) -> Iterator[str]:
    for folder in FOLDERS:
        if (root / folder).exists() and not (root / folder).is_dir():
            yield f"{folder} is a file, where a lab has a folder."
    for path in wanted:
        file = root / path
        if file.is_dir():
            yield f"{path} is a folder, where a lab has a file."
        elif file.is_file() and not re.search(OF_EMS[path], file.read_text(encoding="utf-8", errors="replace")):
            whose = "another Pulumi project's" if path == "Pulumi.yaml" else "not EMS's"
            yield f"{path} is there, and {whose}."


def _environment(root: Path, found: Existing) -> tuple[dict[str, str], tuple[str, ...]]:
    """The files of an environment where no lock is there, and what is to be said of what was found."""
    if found.lock:
        return {}, (f"Packages: {found.lock}, to which `ems new` points stack files.",)
    folder = f"environments/{MAIN}"
    if found.wishes:
        try:
            wished = existing.wishes_of(Path(os.path.normpath(root / found.wishes)), root / folder)
        except ProvenanceError as error:
            return {}, (*str(error).splitlines(), f"Then: ems env lock {MAIN} --from {found.wishes}")
        left = (f"Left out of {folder}: {', '.join(wished.left_out)}",) if wished.left_out else ()
        files = {f"{folder}/requirements.in": wished.text, f"{folder}/python-version": f"{wished.python}\n"}
        return files, (f"Packages: {found.wishes}, which environments/{MAIN} locks with versions and hashes.", *left)
    if environment.names(root):
        return {}, ()
    note = f"Packages: {found.unlocked} has no lock; `uv lock` writes one." if found.unlocked else ""
    if note:
        return {}, (note,)
    return scaffold.environment_texts(root, MAIN), ()


def _to_lock(root: Path, found: Existing, texts: dict[Path, str]) -> str:
    """The environment that has wishes and no lock yet; "" if there is none."""
    folder = root / "environments" / MAIN
    has_wishes = folder / "requirements.in" in texts or (folder / "requirements.in").is_file()
    return MAIN if found.wishes and has_wishes and not (folder / "requirements.txt").exists() else ""


def carry_out(plan: Plan) -> Lab:
    """Add what the plan lists, and commit nothing. The lock comes last: ProvenanceError if it cannot be made."""
    if plan.top is None:
        scaffold.begin_repository(plan.root)
    scaffold.write(plan.root, plan.texts)
    if plan.ignore:
        _ignore(plan.root / ".gitignore", plan.ignore)
    made = laboratory.read(plan.root)
    if plan.lock:
        building.lock(environment.folder(plan.root, plan.lock))
    return made


def _ignore(file: Path, lines: tuple[str, ...]) -> None:
    """Add lines at the end; the file keeps its line endings."""
    before = file.read_bytes() if file.exists() else b""
    end = b"\r\n" if b"\r\n" in before else b"\n"
    gap = end if before and not before.endswith(b"\n") else b""
    with file.open("ab") as opened:
        opened.write(gap + b"".join(line.encode() + end for line in lines))
