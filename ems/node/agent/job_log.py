"""What the job of one run has printed: the end of `job.log`, which has those of all runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LINES, BYTES = 30, 8 * 2**10


def say_in_log(run_dir: Path, line: str) -> None:
    """A line of EMS's own in the job's log."""
    with (run_dir / "job.log").open("a", encoding="utf-8") as file:
        file.write(f"--- {line} ---\n")


@dataclass(frozen=True)
class JobLog:
    """Of run `attempt`, in its folder."""

    run_dir: Path
    attempt: int

    def begin(self) -> None:
        """What is printed from now on is of this run."""
        say_in_log(self.run_dir, f"attempt {self.attempt}")

    def tail(self) -> str:
        """The last LINES that this run's job printed."""
        return "".join(self.end().splitlines(keepends=True)[-LINES:])

    def end(self) -> str:
        """The last BYTES that this run's job printed, or fewer."""
        file = self.run_dir / "job.log"
        if not file.exists():
            return ""
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - BYTES))
            text = opened.read().decode("utf-8", errors="replace")
        return text.rpartition(f"--- attempt {self.attempt} ---\n")[2]
