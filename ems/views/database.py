"""What `ems database` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from ems.databases import MAY, Checkup
from ems.databases.copying import Compared

CLOCK_S = 1.0  # from here on a difference is worth a word; EMS itself goes by the database's clock alone


def setup_object(url: str, script: str) -> dict[str, Any]:
    """The shape of `ems database init --json`; `script` is "" where it was run."""
    return {"database": url, "done": not script, "script": script}


def as_object(url: str, found: Checkup) -> dict[str, Any]:
    """The shape of `ems database check --json`."""
    return {"database": url, "ok": not found.faults, **asdict(found)}


def page(url: str, found: Checkup) -> Text:
    known = "none yet" if found.tables_version is None else f"version {found.tables_version}"
    ahead_s = found.clock_ahead_s
    clock = f"{abs(ahead_s):.3g} s {'ahead of' if ahead_s >= 0 else 'behind'} this machine's"
    lines = {
        "database": url,
        "service": found.service,
        "role": found.role or "none: the file's permissions count",
        "may": ", ".join(found.may) or "nothing yet",
        "may not": ", ".join(may for may in MAY if may not in found.may) if found.tables_version else "",
        "tables": f"{known}; this EMS needs version {found.needed_version}",
        "latency": f"{found.latency_s * 1000:.3g} ms a round trip",
        "clock": clock + (", whose time may be wrong" if abs(ahead_s) > CLOCK_S else ""),
    }
    described = [Text.assemble((f"{name:<9}", "bold"), f" {text}") for name, text in lines.items() if text]
    return Text("\n").join([*described, *(Text(f"✗ {fault}".replace("\n", "\n  "), "red") for fault in found.faults)])


def compared_object(compared: Compared) -> dict[str, Any]:
    """The shape of one object of `ems database copy --json`."""
    return asdict(compared)


def comparison(compared: Sequence[Compared]) -> Table:
    table = Table("", "rows", "there", "", box=None, header_style="dim")
    for each in compared:
        verdict = Text("same", "green") if each.same else Text("different", "red")
        table.add_row(each.name, f"{each.rows:,}", f"{each.rows_there:,}", verdict)
    for column in table.columns[1:3]:
        column.justify = "right"
    return table
