"""pylock.toml (PEP 751), as the lines of a requirements.txt. Pure."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from ems.base.errors import ProvenanceError

CHOICE = re.compile(r"""(['"])([^'"]+)\1\s+(not\s+)?in\s+(extras|dependency_groups)""")
TRUE, FALSE = "python_version >= '0'", "python_version < '0'"
ELSEWHERE = ("vcs", "directory", "archive")
HASHES = ("sha256", "sha384", "sha512")


class Pins(NamedTuple):
    """What the file says. `pins`: lines of requirements.txt; `requires_python`: "" where it says nothing."""

    pins: str
    requires_python: str


def read(where: str, text: str, groups: Collection[str], extras: Collection[str]) -> Pins:
    """What is to be installed with these dependency groups and extras.

    ProvenanceError has all that the file says and EMS cannot install the same again.
    """
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProvenanceError(
            f"{where} is not TOML: {error}", "Write it anew, as by: uv export -o pylock.toml"
        ) from error
    found = list(_faults(said, groups, extras))
    if found:
        raise ProvenanceError("\n".join(f"{where}: {fault}" for fault in found))
    chosen = {"dependency_groups": {*said.get("default-groups", ()), *groups}, "extras": set(extras)}
    lines = [_line(package, chosen) for package in said.get("packages", ())]
    return Pins("\n".join(lines), said.get("requires-python", ""))


def _faults(said: Mapping[str, Any], groups: Collection[str], extras: Collection[str]) -> Iterator[str]:
    if not re.fullmatch(r"1(\.\d+)*", str(said.get("lock-version"))):
        yield f"has lock-version {said.get('lock-version')!r}: allowed is 1.0"
    for key, names in (("dependency-groups", groups), ("extras", extras)):
        for name in names:
            if name not in said.get(key, ()):
                yield f"has no {name!r} among its {key}: allowed are {', '.join(said.get(key, ())) or 'none'}"
    for package in said.get("packages", ()):
        if kind := next((kind for kind in ELSEWHERE if kind in package), ""):
            yield f"has {package.get('name')!r} from a {kind}: allowed is a package index"
        elif not package.get("version"):
            yield f"has {package.get('name')!r} without a version"
        elif not list(_hashes(package)):
            yield f"has {package['name']!r} without a hash of {', '.join(HASHES)}"


def _hashes(package: Mapping[str, Any]) -> Iterator[str]:
    files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else [])]
    for file in files:
        known = file.get("hashes", {})
        yield from (f"{kind}:{known[kind]}" for kind in HASHES if kind in known)


def _line(package: Mapping[str, Any], chosen: Mapping[str, Collection[str]]) -> str:
    marker = CHOICE.sub(lambda found: _decided(found, chosen), package.get("marker", ""))
    hashes = "".join(f" --hash={value}" for value in sorted(set(_hashes(package))))
    return f"{package['name']}=={package['version']}" + (f" ; {marker}" if marker else "") + hashes


def _decided(found: re.Match[str], chosen: Mapping[str, Collection[str]]) -> str:
    return TRUE if (found[2] in chosen[found[4]]) != bool(found[3]) else FALSE
