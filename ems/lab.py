"""The lab: the repository whose `Pulumi.yaml` names it, its id and its database."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ems.errors import UserError

DEFAULT_DATABASE = "sqlite:///.ems/ems.db"


@dataclass(frozen=True)
class Lab:
    root: Path
    name: str
    id: uuid.UUID
    database_url: str

    @property
    def work_dir(self) -> Path:
        """Where EMS keeps what can be lost: bundles, run folders, the default database and state."""
        return self.root / ".ems"

    @property
    def stacks_dir(self) -> Path:
        return self.root / "stacks"

    def stack_file(self, stack: str) -> Path:
        return self.stacks_dir / f"Pulumi.{stack}.yaml"

    def stacks(self) -> list[str]:
        """Names of all stacks with a stack file, sorted."""
        files = self.stacks_dir.glob("Pulumi.*.yaml")
        return sorted(file.name.removeprefix("Pulumi.").removesuffix(".yaml") for file in files)

    def run_dir(self, experiment_id: str) -> Path:
        return self.work_dir / "runs" / experiment_id


def find(start: Path | None = None) -> Lab:
    """The lab that `start` (default: the working directory) lies in; UserError if it lies in none."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "Pulumi.yaml").is_file():
            return read(folder)
    raise UserError(
        f"{here} is not in a lab: no Pulumi.yaml here or above.",
        "Go to your lab's repository, or make one: ems init DIR",
    )


def read(root: Path) -> Lab:
    try:
        project = yaml.safe_load((root / "Pulumi.yaml").read_text(encoding="utf-8"))
        config = project.get("config") or {}
        lab_id = uuid.UUID(_value(config["ems:lab_id"]))
        name = str(project["name"])
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{root / 'Pulumi.yaml'} does not describe a lab: {error!r}.",
            "It needs `name` and `config: {ems:lab_id: UUID}`; `ems init DIR` writes one.",
        ) from error
    return Lab(root, name, lab_id, _value(config.get("ems:database") or DEFAULT_DATABASE))


def _value(setting: Any) -> str:
    return str(setting["value"] if isinstance(setting, dict) else setting)
