"""Stacks whose jobs leave files in EMS_OUTPUT_DIR, and what is kept of them."""

from __future__ import annotations

import json
from typing import Any

from tests.end_to_end.conftest import User

COMMAND = {"command": ["python", "experiments/e/job.py"]}


def described(user: User, program: str, job: dict[str, Any], results: object = "none", **more: object) -> None:
    user.experiment()
    file = user.root / "stacks/Pulumi.e.yaml"
    said = json.loads(file.read_text())
    said["config"]["ems:experiment"] |= {"results": results, **more}
    said["config"]["ems:experiment"]["job"] = job
    user.write("stacks/Pulumi.e.yaml", json.dumps(said, indent=2))
    user.write("experiments/e/job.py", program)
    user.commit("A program with outputs")


def objects(user: User) -> list[str]:
    """Digests of what the store has."""
    return sorted(path.name for path in (user.root / ".ems/store").glob("??/*"))


def outputs(user: User, stack: str = "e") -> list[dict[str, Any]]:
    """What was kept, once it is brought to `got`."""
    return list(json.loads(user.ems("outputs", stack, "--to", "got", "--json").stdout))
