"""What EMS needs on this machine and in this lab."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ems import databases, engine, lab
from ems.cache import cache_dir
from ems.errors import EmsError, UserError
from ems.process import run, uv

FREE_GB = 2.0


@dataclass(frozen=True)
class Finding:
    name: str
    ok: bool
    detail: str
    remedy: str = ""

    def as_object(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """Every check, also when an earlier one fails."""
    checks = {
        "python": _python,
        "git": lambda: run(["git", "--version"]).strip(),
        "uv": lambda: uv("--version").strip(),
        "pulumi": _pulumi,
        "disk": _disk,
        "lab": lambda: f"{lab.find().name} in {lab.find().root}",
        "plugin": _plugin,
        "database": _database,
    }
    return [_finding(name, check) for name, check in checks.items()]


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


def _plugin() -> str:
    shim = lab.find().root / "plugins" / "pulumi-resource-ems"
    if not os.access(shim, os.X_OK):
        raise UserError(f"{shim} is missing or not executable", f"git checkout {shim} && chmod +x {shim}")
    return str(Path("plugins") / shim.name)


def _database() -> str:
    here = lab.find()
    with closing(databases.connect(here.database_url, here.root)) as database:
        return f"{here.database_url}: {len(database.experiments())} experiments"


def table(findings: Sequence[Finding]) -> Table:
    shown = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
        shown.add_row(mark, finding.name, "\n".join(part for part in (finding.detail, finding.remedy) if part))
    return shown
