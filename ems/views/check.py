"""What `ems check` found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypedDict

import rich.text

from ems.base.console import Text
from ems.engine.preflight import Report


class CheckObject(TypedDict):
    """What was found in one stack."""

    stack: Annotated[str, "Name of the stack."]
    summary: Annotated[str, "What the stack is: its kind; of an experiment its id, and how many points grids share."]
    problems: Annotated[list[str], "What has to be fixed, each with file and line where they are known."]
    warnings: Annotated[list[str], "What may deserve a look; no warning changes the exit code."]
    exit_code: Annotated[int, "The exit code of the gravest problem; 0 if there is none."]
    needs: Annotated[list[str], "Of a persistent place, the rights that it takes."]


def as_object(report: Report) -> CheckObject:
    """The shape of `ems check --json`, for one stack."""
    return {
        "stack": report.stack,
        "summary": report.summary,
        "problems": list(report.problems),
        "warnings": list(report.warnings),
        "exit_code": report.exit_code,
        "needs": list(report.needs),
    }


def page(reports: Sequence[Report]) -> rich.text.Text:
    """A line for each stack, with its problems and warnings below."""
    return Text("\n").join(line for report in reports for line in _lines(report))


def _lines(report: Report) -> list[Text]:
    mark = ("✗ ", "red") if report.problems else ("✓ ", "green")
    problems = [Text(f"  {problem}") for problem in report.problems]
    warnings = [Text(f"  warning: {warning}", "yellow") for warning in report.warnings]
    needs = [Text(f"  {needed}", "dim") for needed in report.needs]
    return [Text.assemble(mark, (report.stack, "bold"), f" {report.summary}".rstrip()), *problems, *warnings, *needs]
