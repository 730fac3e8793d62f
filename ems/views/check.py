"""What `ems check` found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.text import Text

from ems.engine.preflight import Report


def as_object(report: Report) -> dict[str, Any]:
    """The shape of `ems check --json`, for one stack."""
    return asdict(report)


def page(reports: Sequence[Report]) -> Text:
    return Text("\n").join(line for report in reports for line in _lines(report))


def _lines(report: Report) -> list[Text]:
    mark = ("✗ ", "red") if report.problems else ("✓ ", "green")
    problems = [Text(f"  {problem}") for problem in report.problems]
    warnings = [Text(f"  warning: {warning}", "yellow") for warning in report.warnings]
    return [Text.assemble(mark, (report.stack, "bold"), f" {report.summary}".rstrip()), *problems, *warnings]
