"""What an agent is told: `agent.json` in its run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ems import stores
from ems.base import aside
from ems.base.errors import UserError
from ems.base.private import make_folder


@dataclass(frozen=True)
class AgentConfig:
    """`database` is a URL, relative to the lab's folder `root`, or `mailbox:` for one in the run's folder that the
    database's side empties (`ems.node.mailbox`); `environment` is the folder of a built one,
    "" where each machine has its own; `inputs` are the paths of staged files, by name."""

    experiment_id: str
    database: str
    root: str
    bundle: str
    environment: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    store: str = stores.DEFAULT  # URL, relative to `root`, of what keeps files that the job leaves
    commit: str = ""  # that the bundle's code is of
    workers: int = 0  # of a sweep that does not say; 0: one for each CPU
    variables: Mapping[str, str] = field(default_factory=dict)  # of this machine, that a job is to see
    lease_s: float = 30.0
    beat_s: float = 2.0
    grace_s: float = 5.0  # between SIGTERM and SIGKILL
    spool_limit_mb: float = 256.0  # above it results wait in the job's own files

    @staticmethod
    def exists(run_dir: Path) -> bool:
        """Whether `run_dir` has such a file, that is, was made ready for a run."""
        return _file(run_dir).exists()

    @staticmethod
    def read(run_dir: Path) -> AgentConfig:
        """UserError if `run_dir` has no such file, or one of another version."""
        try:
            return AgentConfig(**json.loads(_file(run_dir).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{_file(run_dir)} does not describe a run: {error}.", "`ems up STACK` writes it anew."
            ) from error

    def write(self, run_dir: Path) -> None:
        """Write it into `run_dir`, which is made if need be."""
        make_folder(run_dir)
        aside.write(_file(run_dir), json.dumps(asdict(self), indent=2))


def tell_to_listen(run_dir: Path) -> None:
    """Have the agent of this folder, if it is one, hear its orders now: its next beat may be a minute away."""
    if AgentConfig.exists(run_dir):
        _bell(run_dir).touch()


def is_told_to_listen(run_dir: Path) -> bool:
    """True once for each time that somebody told it."""
    if not _bell(run_dir).exists():
        return False
    _bell(run_dir).unlink()
    return True


def _file(run_dir: Path) -> Path:
    return run_dir / "agent.json"


def _bell(run_dir: Path) -> Path:
    return run_dir / "agent.listen"
