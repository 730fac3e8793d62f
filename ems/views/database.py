"""What `ems database` shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

import rich.text
from rich.table import Table

from ems.base.console import Text
from ems.base.messages import counted
from ems.databases import MAY, Checkup
from ems.databases.comparing import Compared

CLOCK_S = 1.0  # from here on a difference is worth a word; EMS itself goes by the database's clock alone


class SetupObject(TypedDict):
    """What `ems database init` did, or would do."""

    database: Annotated[str, "URL of the lab's database."]
    done: Annotated[bool, "Whether the tables and roles were made; false with `--print`."]
    script: Annotated[str, "With `--print` what would be run; otherwise empty."]


class CheckupObject(TypedDict):
    """What was found in the lab's database."""

    database: Annotated[str, "URL of the lab's database."]
    ok: Annotated[bool, "Whether EMS can work with it: there are no faults."]
    service: Annotated[str, "Name and version of the service."]
    role: Annotated[str, "The role with which EMS connected; empty where a service has none."]
    may: Annotated[
        list[str],
        "What this role may do, of: `read`, `run experiments`, `describe the lab`, `change tables`.",
    ]
    tables_version: Annotated[int | None, "Version of EMS's tables; null if there are none yet."]
    needed_version: Annotated[int, "Version of the tables that this EMS needs."]
    latency_s: Annotated[float, "Median of some round trips, in seconds."]
    clock_ahead_s: Annotated[float, "The database's clock minus this machine's, in seconds."]
    faults: Annotated[list[str], "What keeps EMS from working here, each with how to fix it."]


class ComparedObject(TypedDict):
    """How one table, or the results of one experiment, compare after copying."""

    name: Annotated[str, "Name of the table, or of the experiment."]
    rows: Annotated[int, "Rows in the database that was copied."]
    rows_there: Annotated[int, "Rows in the copy."]
    same: Annotated[bool, "Whether both have the same rows."]


def setup_object(url: str, script: str) -> SetupObject:
    """The shape of `ems database init --json`; `script` is "" where it was run."""
    return {"database": url, "done": not script, "script": script}


def as_object(url: str, found: Checkup) -> CheckupObject:
    """The shape of `ems database check --json`."""
    return {
        "database": url,
        "ok": not found.faults,
        "service": found.service,
        "role": found.role,
        "may": list(found.may),
        "tables_version": found.tables_version,
        "needed_version": found.needed_version,
        "latency_s": found.latency_s,
        "clock_ahead_s": found.clock_ahead_s,
        "faults": list(found.faults),
    }


def page(url: str, found: Checkup) -> rich.text.Text:
    """What was found at `url`, one line each; latency in ms, the clock's difference in s, faults last."""
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


def compared_object(compared: Compared) -> ComparedObject:
    """The shape of one object of `ems database copy --json`."""
    return {
        "name": compared.name,
        "rows": compared.rows,
        "rows_there": compared.rows_there,
        "same": compared.same,
    }


def comparison(compared: Sequence[Compared]) -> Table:
    """A line for each table, one for all results that are the same, and one for each experiment's that are not: rows
    here and there, and whether they are the same."""
    table = Table("", "rows", "there", "", box=None, header_style="dim")
    alike = [each for each in compared if each.stack and each.same]
    others = [each for each in compared if not (each.stack and each.same)]
    for each in sorted([*others, *_together(alike)], key=lambda each: bool(each.stack)):
        verdict = Text("same", "green") if each.same else Text("different", "red")
        table.add_row(each.name, f"{each.rows:,}", f"{each.rows_there:,}", verdict)
    for column in table.columns[1:3]:
        column.justify = "right"
    return table


def _together(alike: Sequence[Compared]) -> list[Compared]:
    """The results of all these experiments as one."""
    rows = sum(each.rows for each in alike)
    return [Compared(f"results of {counted(len(alike), 'experiment')}", rows, rows, same=True)] if alike else []
