"""The pages of `ems check` and `ems doctor`."""

from __future__ import annotations

from ems.views import check, doctor
from tests.views.drawing import drawn


def test_the_page_of_check() -> None:
    reports = [check.Report("a", "lab"), check.Report("b", "", ("x: [1]",), ("y",), 2)]
    assert drawn(check.page(reports)) == "✓ a lab\n✗ b\n  x: [1]\n  warning: y\n"


def test_the_page_of_doctor() -> None:
    findings = [doctor.Finding("git", True, "2.39"), doctor.Finding("disk", False, "1 GB free", "Free\nsome")]
    assert drawn(doctor.page(findings)) == "✓ git       2.39\n✗ disk      1 GB free\n  Free\n  some\n"
