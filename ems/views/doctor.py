"""What EMS needs on this machine and in this lab."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

import rich.text

from ems.base.console import Text
from ems.engine.doctor import Finding


class DoctorObject(TypedDict):
    """The result of one check of this machine or this lab."""

    name: Annotated[str, "What was checked, such as `pulumi` or `database`."]
    ok: Annotated[bool, "Whether it works."]
    detail: Annotated[str, "What was found."]
    remedy: Annotated[str, "How to fix it; empty if nothing is wrong."]


def as_object(finding: Finding) -> DoctorObject:
    """The shape of `ems doctor --json`, for one check."""
    return {"name": finding.name, "ok": finding.ok, "detail": finding.detail, "remedy": finding.remedy}


def page(findings: Sequence[Finding]) -> rich.text.Text:
    """One line for what is well; below what is not, how to fix it."""
    return Text("\n").join(line for finding in findings for line in _lines(finding))


def _lines(finding: Finding) -> list[Text]:
    mark = ("✓ ", "green") if finding.ok else ("✗ ", "red")
    remedy = [Text(f"  {line}") for line in finding.remedy.splitlines()]
    return [Text.assemble(mark, (f"{finding.name:<9}", "bold"), f" {finding.detail}"), *remedy]
