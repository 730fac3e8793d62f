"""Whether this machine and this lab have what EMS needs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ems import lab
from ems.base.cache import cache_dir
from ems.base.errors import EmsError, UserError
from ems.base.process import run, uv
from ems.engine import install as engine
from ems.lab import Lab, project
from ems.lab.person import setting

Check = Callable[[], str | tuple[str, str]]  # the detail, and maybe what is to be said of it

FREE_GB = 2.0
IDENTITY = {"user.name": "'Your Name'", "user.email": "you@lab.edu"}


@dataclass(frozen=True)
class Finding:
    """What one check found: `detail` in words; `remedy` says how to fix it, "" where nothing is to be said."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every check, also when an earlier one fails; those of the lab only where there is one.

    What is wrong is a finding: no EmsError is raised.
    """
    machine: dict[str, Check] = {
        "python": _python,
        "git": _git,
        "uv": lambda: uv("--version").strip(),
        "pulumi": _pulumi,
        "disk": _disk,
        "lab": lambda: f"{lab.find().name} in {lab.find().root}",
    }
    findings = [_finding(name, check) for name, check in machine.items()]
    if findings[-1].ok:
        here = lab.find()
        findings += [
            _finding("plugin", lambda: str(here.plugin())),
            _finding("project", lambda: _project(here)),
            _finding("database", lambda: _database(here)),
            _finding("store", lambda: _store(here)),
        ]
    return findings


def _finding(name: str, check: Check) -> Finding:
    try:
        found = check()
        detail, remark = (found, "") if isinstance(found, str) else found
        return Finding(name, ok=True, detail=detail, remedy=remark)
    except EmsError as error:
        return Finding(name, ok=False, detail=error.message, remedy=error.hint)


def _python() -> str:
    return f"{sys.version.split()[0]} at {sys.executable}"


def _git() -> tuple[str, str]:
    """Its version; and how to tell it who you are, if it does not know, as it commits nothing until then."""
    here = Path.cwd()
    unknown = [name for name in ("user.name", "user.email") if not setting(here, name)]
    remedy = " && ".join(f"git config --global {name} {IDENTITY[name]}" for name in unknown)
    return run(["git", "--version"]).strip(), f"It does not know who you are: {remedy}" if remedy else ""


def _pulumi() -> tuple[str, str]:
    """What is found, and what is to be said of its version."""
    folder = engine.find()
    tested = f"tested: {engine.OLDEST} to {engine.VERSION}"
    if folder is None:
        raise UserError("not found", f"The first `ems up` builds it (5 minutes). Or put one on PATH ({tested}).")
    version = engine.version(folder)
    found = f"{version} ({tested}) in {folder}"
    if engine.numbers(version) > engine.numbers(engine.VERSION):
        return found, f"This one is newer ({tested}). If something fails, take one of those."
    on_path = shutil.which("pulumi")
    passed_over = on_path and Path(on_path).parent != folder
    return found, f"The one on PATH, {on_path}, is not used ({tested})." if passed_over else ""


def _disk() -> str:
    folder = next(path for path in (cache_dir(), *cache_dir().parents) if path.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < FREE_GB:
        raise UserError(f"{free_gb:.1f} GB free at {folder}", f"Environments and the engine need {FREE_GB} GB.")
    return f"{free_gb:.0f} GB free at {folder}"


def _project(here: Lab) -> str:
    project.refuse(here.root)
    return str(here.root / "Pulumi.yaml")


def _database(here: Lab) -> str:
    with here.database() as database:
        there = len(database.newest())
        return f"{here.database_url}: experiments of {there:,} stack{'' if there == 1 else 's'}"


def _store(here: Lab) -> str:
    """Of one that is not there yet, that the next run makes it; one that is there must take what is written."""
    folder = here.store().folder
    if folder and not folder.exists():
        return f"{here.store_url}: made by the first `ems up`"
    here.make_store_ready()
    return here.store_url
