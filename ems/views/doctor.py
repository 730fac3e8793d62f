"""What EMS needs on this machine and in this lab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from ems.engine.doctor import Finding


def as_object(finding: Finding) -> dict[str, Any]:
    """The shape of `ems doctor --json`, for one check."""
    return asdict(finding)


def page(findings: Sequence[Finding]) -> Text:
    """One line for what is well; below what is not, how to mend it."""
    return Text("\n").join(line for finding in findings for line in _lines(finding))


def _lines(finding: Finding) -> list[Text]:
    mark = ("✓ ", "green") if finding.ok else ("✗ ", "red")
    remedy = [Text(f"  {line}") for line in finding.remedy.splitlines()]
    return [Text.assemble(mark, (f"{finding.name:<9}", "bold"), f" {finding.detail}"), *remedy]
