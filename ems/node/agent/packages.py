"""The repository's own packages that its lock installs, laid out beside the unpacked code as if they were editable.

Python finds their modules where the commit has them, `importlib.metadata` finds name, version and entry points, and
their programs (`[project.scripts]`) are on PATH. Nothing is built.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from ems.base import aside

PACKAGES = "environment/packages.json"
LAID_OUT = "packages"
PROGRAM = """\
#!/bin/sh
'''exec' {python} "$0" "$@"
' '''
import sys
from {module} import {first}
sys.argv[0] = {name!r}
sys.exit({called}())
"""


def added(variables: Mapping[str, str], unpacked: Path, environment: Path) -> dict[str, str]:
    """The job's variables, with which it finds the packages of the bundle in `unpacked`; the same if it has none.

    `environment`: the folder of the built one, whose Python runs the packages' programs.
    """
    file = unpacked / PACKAGES
    if not file.exists():
        return dict(variables)
    packages = json.loads(file.read_text(encoding="utf-8"))
    with aside.making(unpacked / LAID_OUT) as folder:
        for package in packages:
            _lay_out(folder, package, environment / "bin" / "python")
    made = unpacked / LAID_OUT
    roots = [str(unpacked / "code" / root) for package in packages for root in package["roots"]]
    paths = [*filter(None, [variables.get("PYTHONPATH")]), *dict.fromkeys(roots), str(made)]
    return {**variables, "PYTHONPATH": ":".join(paths), "PATH": f"{made / 'bin'}:{variables['PATH']}"}


def _lay_out(folder: Path, package: Mapping[str, Any], python: Path) -> None:
    name = re.sub(r"[-_.]+", "_", package["name"])
    about = folder / f"{name}-{package['version']}.dist-info"
    about.mkdir(parents=True)
    metadata = f"Metadata-Version: 2.1\nName: {package['name']}\nVersion: {package['version']}\n"
    (about / "METADATA").write_text(metadata, encoding="utf-8")
    (about / "INSTALLER").write_text("ems\n", encoding="utf-8")
    with (about / "entry_points.txt").open("w", encoding="utf-8") as file:
        for group, points in groupby(package["entry_points"], key=itemgetter(0)):
            file.write("\n".join([f"[{group}]", *(f"{called} = {to}" for _, called, to in points), ""]))
    for group, called, to in package["entry_points"]:
        if group in {"console_scripts", "gui_scripts"}:
            _write_program(folder / "bin" / called, to, python)


def _write_program(file: Path, to: str, python: Path) -> None:
    module, _, called = to.partition("[")[0].replace(" ", "").partition(":")
    words = {"python": shlex.quote(str(python)), "module": module, "first": called.partition(".")[0]}
    file.parent.mkdir(exist_ok=True)
    file.write_text(PROGRAM.format(name=file.name, called=called, **words), encoding="utf-8")
    file.chmod(0o755)
