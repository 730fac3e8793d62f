"""Whether this machine and this lab have what EMS needs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from ems import lab
from ems.base.cache import cache_dir
from ems.base.errors import EmsError, UserError
from ems.base.process import run, uv
from ems.engine import install as engine
from ems.lab import Lab

FREE_GB = 2.0


@dataclass(frozen=True)
class Finding:
    """What one check found: `detail` in words; `remedy` says how to fix it, "" where nothing is wrong or to be said."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Every check, also when an earlier one fails; those of the lab only where there is one.

    What is wrong is a finding: no EmsError is raised.
    """
    machine = {
        "python": _python,
        "git": lambda: run(["git", "--version"]).strip(),
        "uv": lambda: uv("--version").strip(),
        "pulumi": _pulumi,
        "disk": _disk,
        "lab": lambda: f"{lab.find().name} in {lab.find().root}",
    }
    findings = [_finding(name, check) for name, check in machine.items()]
    if findings[-1].ok:
        here = lab.find()
        findings += [_finding("plugin", lambda: str(here.plugin())), _finding("database", lambda: _database(here))]
    return findings


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, ok=True, detail=check())
    except EmsError as error:
        return Finding(name, ok=False, detail=error.message, remedy=error.hint)


def _python() -> str:
    return f"{sys.version.split()[0]} at {sys.executable}"


def _pulumi() -> str:
    folder = engine.find()
    if folder is None:
        raise UserError("not found", "The first `ems up` gets it: by download, else by building it (3 minutes).")
    return f"{run([folder / 'pulumi', 'version']).strip()} in {folder}"


def _disk() -> str:
    folder = next(path for path in (cache_dir(), *cache_dir().parents) if path.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    if free_gb < FREE_GB:
        raise UserError(f"{free_gb:.1f} GB free at {folder}", f"Environments and the engine need {FREE_GB} GB.")
    return f"{free_gb:.0f} GB free at {folder}"


def _database(here: Lab) -> str:
    with here.database() as database:
        there = len(database.experiments())
        return f"{here.database_url}: {there} experiment{'' if there == 1 else 's'}"
