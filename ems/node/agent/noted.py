"""How the job of a run ended, noted in `exit.json` of its folder until all of its results are stored."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from ems.base import aside
from ems.databases import Outcome, State

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Noted:
    """The run's outcome, and how many rows its job wrote."""

    outcome: Outcome
    rows: int


def read(run_dir: Path) -> Noted | None:
    """What an earlier agent noted: all results of its job are in the spool, and only storing was left."""
    try:
        said = json.loads(_file(run_dir).read_bytes())
        rows = int(said.pop("rows"))
        return Noted(Outcome(**{**said, "state": State(said["state"])}), rows)
    except FileNotFoundError:
        return None
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        log.warning("What exit.json says of the job's end cannot be read, so it runs again: %s", error)
        return None


def write(run_dir: Path, ended: Noted) -> None:
    """Note it. Where that is impossible (a full disk), a later agent would run the job again."""
    try:
        aside.write(_file(run_dir), json.dumps({"rows": ended.rows, **asdict(ended.outcome)}))
    except OSError as error:
        log.warning("exit.json was not written: %s", error)


def forget(run_dir: Path) -> None:
    """Have the job run again."""
    _file(run_dir).unlink(missing_ok=True)


def _file(run_dir: Path) -> Path:
    return run_dir / "exit.json"
