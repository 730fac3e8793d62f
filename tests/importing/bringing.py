"""What the tests of imports share: a lab's rows, sources on the disk, and looks at what was stored."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from ems import databases
from ems.databases import Database, Experiment, Experimenter, Funding, Project
from ems.lab import Lab
from tests.cli.running import run
from tests.databases.cases import table

CSV = 'm,k,rate,label,ok\n10,1,0.5,"a, b",TRUE\n10,2,,"",FALSE\n20,1,1e3,NA,NA\n'
STORED = {
    "point": [0, 0, 0],
    "row": [0, 1, 2],
    "m": [10, 10, 20],
    "k": [1, 2, 1],
    "rate": [0.5, None, 1000.0],
    "label": ["a, b", "", None],
    "ok": [True, False, None],
}


def fill(database: Database) -> None:
    database.create()
    for record in (Experimenter("me", "Me"), Project("first", "First"), Funding("unfunded", "none")):
        database.upsert(record)


def set_up(lab: Lab) -> None:
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        fill(database)


def write(name: str, text: str | bytes) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def bring(*words: str) -> dict[str, Any]:
    """What `ems import … --json` says."""
    return dict(json.loads(run("import", *words, "--json").stdout))


def refused(*words: str, expect: int = 2) -> str:
    return " ".join(run("import", *words, expect=expect).stderr.split())


def rows(lab: Lab, stack: str) -> dict[str, list]:
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        return table(database, newest(lab, stack).id)


def newest(lab: Lab, stack: str) -> Experiment:
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        return database.experiments(stack)[0]


def experiments(lab: Lab) -> list[Experiment]:
    with closing(databases.connect(lab.database_url, lab.root)) as database:
        return database.experiments()
