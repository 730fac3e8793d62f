"""What a lock pins: faults that forbid to build it, and what may not be meant."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from ems.base.errors import ProvenanceError
from ems.base.process import uv
from ems.provenance import wishes
from ems.provenance.environment import PYTHON, WISHES, Environment, built_folder, is_built

OLDEST_PYTHON = (3, 9)
MACHINES: tuple[Mapping[str, str], ...] = (
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "aarch64"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
)
RENDERING = re.compile(
    "altair|bokeh|dash|holoviews|ipykernel|ipython|ipywidgets|jupyter.*|kaleido|matplotlib|nbconvert|notebook|panel"
    "|plotly|plotnine|pygal|pyqt.*|pyside.*|pyvista|seaborn|streamlit|vtk"
)
_PINNED = re.compile(r"[A-Za-z0-9][\w.-]*\s?(\[[^\]]*\])?\s?==\s?[A-Za-z0-9][\w.!+-]*\s?(;.*)?")
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)\s?(?:\[[^\]]*\])?\s?==\s?([\w.!+-]+)\s?(;.*)?")
_HASH = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?", re.ASCII)
DASK = ("dask", "distributed")


class Findings(NamedTuple):
    """What `check` found, one sentence each, with the file and, where it is known, the line."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def check(environment: Environment) -> Findings:
    """What forbids to build it (errors), and what a cluster's nodes would carry in vain (warnings)."""
    return Findings(_errors(environment), tuple(_warnings(environment)))


def refuse(environment: Environment) -> None:
    """ProvenanceError if the environment cannot be built the same again; it has all faults."""
    if errors := _errors(environment):
        raise ProvenanceError("\n".join(errors), _way_out(environment, errors))


def _way_out(environment: Environment, errors: Sequence[str]) -> str:
    """What people change, the version of Python or what the lock is made of, and the next command."""
    if not environment.file:
        return f"Fix {PYTHON if f'/{PYTHON}:' in errors[0] else WISHES}, then: {environment.fix()}"
    if environment.file.endswith(".txt"):
        return f"A lock with hashes is made of it by: ems env lock NAME --from {environment.file}"
    return f"Fix what the lock is made of, then: {environment.fix()}"


@lru_cache(maxsize=64)
def _errors(environment: Environment) -> tuple[str, ...]:
    return tuple(_faults(environment))


def _faults(environment: Environment) -> Iterator[str]:
    lines = list(wishes.lines(environment.lock))
    for fault in python_faults(environment.python):
        yield f"{environment.python_place}: {fault}"
    has_lines = not environment.file or environment.file.endswith(".txt")  # as the lock itself has them
    faults = [(number, fault) for number, line in lines if (fault := _fault(line))]
    for number, fault in (*faults, *_doubles(lines, environment.python)):
        yield f"{environment.place}:{number}: {fault}" if has_lines else f"{environment.place}: {fault}"


def python_faults(python: str) -> Iterator[str]:
    """What is wrong with a version of Python as it is written."""
    if not _VERSION.fullmatch(python):
        yield f"is {python!r}: allowed is MAJOR.MINOR[.PATCH] and nothing else, as 3.11"
    elif tuple(int(number) for number in python.split(".")) < OLDEST_PYTHON:
        yield f"is {python!r}: allowed is 3.9 or newer"


def pinned(lock: str) -> dict[str, set[str]]:
    """The versions that a lock pins, by canonical name: several where they are for different machines."""
    found: dict[str, set[str]] = {}
    for _, line in wishes.lines(lock):
        if pin := _PIN.match(line):
            found.setdefault(canonicalize_name(pin[1]), set()).add(pin[2])
    return found


def _doubles(lines: Sequence[tuple[int, str]], python: str) -> Iterator[tuple[int, str]]:
    """Packages that a lock pins twice for one and the same machine."""
    seen: dict[str, list[tuple[str, str]]] = {}
    for number, line in lines:
        if pin := _PIN.match(line):
            before = seen.setdefault(canonicalize_name(pin[1]), [])
            version, marker = pin[2], (pin[3] or "").partition(" --hash=")[0].strip("; ")
            for other, theirs in before:
                if any(_holds(marker, machine, python) and _holds(theirs, machine, python) for machine in MACHINES):
                    yield number, f"pins {pin[1]}=={version}, which is pinned before as {other}: allowed is each once"
                    break
            before.append((version, marker))


def _holds(marker: str, machine: Mapping[str, str], python: str) -> bool:
    if not marker:
        return True
    numbers = [*python.split("."), "0"]
    versions = {"python_version": ".".join(numbers[:2]), "python_full_version": ".".join(numbers[:3])}
    try:
        return Marker(marker).evaluate({**machine, **versions})
    except (InvalidMarker, InvalidVersion, UndefinedEnvironmentName):
        return False  # `_fault` tells what is no requirement


def lacks_python(environment: Environment) -> str:
    """What to say of a version of Python that exists nowhere; "" if it may. Of usual ones uv is not asked."""
    python, usual = environment.python, re.fullmatch(r"3\.(\d+)", environment.python)
    if is_built(environment) or (usual and int(usual[1]) <= sys.version_info.minor):
        return ""
    if json.loads(uv("python", "list", python, "--output-format", "json", "--offline")):
        return ""
    fix = "`uv python list` prints those that there are"
    return f"{environment.python_place}: is {python!r}, which uv neither knows nor finds here: {fix}"


def lacks_dask(environment: Environment) -> str:
    """What to say of an environment that cannot compute a sweep; "" if it can."""
    lacking = [name for name in DASK if name not in pinned(environment.lock)]
    fix = environment.fix("dask[distributed]")
    return f"{environment.place}: has no {' and no '.join(lacking)}, which a sweep needs: {fix}" if lacking else ""


def hints(folder: Path, environment: Environment) -> tuple[str, ...]:
    """What may be wrong with the wishes of an environment as it is in the working tree."""
    file = folder / WISHES
    if not file.is_file():
        return ()
    text, place = file.read_text(encoding="utf-8", errors="replace"), f"environments/{environment.name}/{WISHES}"
    lacking = wishes.missing(text, pinned(environment.lock))
    again = f"write it again: ems env lock {environment.name}"
    return (
        *(f"{place}:{number}: {fault}" for number, fault in wishes.options(text)),
        *(f"{place}:{number}: {fault}; {again}" for number, fault in lacking),
    )


def _fault(line: str) -> str:
    requirement, *hashes = line.split(" --hash=")
    if line.startswith("-"):
        return f"{line.partition(' ')[0].partition('=')[0]!r} is not allowed in a lock: only NAME==VERSION with hashes"
    if "://" in requirement or " @ " in requirement or re.match(r"[./~]|\S+(/|\.whl|\.tar\.gz|\.zip)", requirement):
        return f"{requirement!r} comes from an address or a folder: allowed is NAME==VERSION from a package index"
    if not _PINNED.fullmatch(requirement):
        return f"{requirement!r} is not pinned: allowed is NAME==VERSION"
    if not hashes:
        return f"{requirement!r} has no --hash"
    wrong = [found for found in hashes if not _HASH.fullmatch(found)]
    return f"{requirement!r} has --hash={wrong[0]}: allowed is sha256:HEX, sha384:HEX or sha512:HEX" if wrong else ""


def _warnings(environment: Environment) -> Iterator[str]:
    """Libraries that only render; with their size on disk where the environment is built."""
    lines = [line for _, line in wishes.lines(environment.lock)]
    names = [canonicalize_name(found[0]) for line in lines if (found := re.match(r"[\w.-]+", line))]
    rendering = [name for name in names if RENDERING.fullmatch(name)]
    sizes = _sizes_mb(environment) if rendering and is_built(environment) else {}
    for name in rendering:
        size = f" ({sizes[name]:.1f} MB)" if name in sizes else ""
        yield f"{environment.place}: {name}{size} renders data, which the nodes of a cluster never do; notebooks draw"


def _sizes_mb(environment: Environment) -> dict[str, float]:
    """Megabytes on disk of each built distribution, by its canonical name."""
    sizes: dict[str, float] = {}
    for site in built_folder(environment).glob("lib/python*/site-packages"):
        for installed in metadata.distributions(path=[str(site)]):
            name = canonicalize_name(installed.metadata["Name"])
            sizes[name] = sum(file.size or 0 for file in installed.files or ()) / 1e6
    return sizes
