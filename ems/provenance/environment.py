"""A pinned environment: from a lock in git to its digest, its faults, and the folder it is built into.

Built aside and renamed, by uv, once per digest and kind of machine. The virtual environments are uv's *relocatable*
ones, whose scripts find their interpreter relative to themselves, so the rename breaks nothing. A build in its final
place would need no such care, but there the uv of a killed build, which outlives it, could write into the next one.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from ems.base import aside
from ems.base.cache import cache_dir
from ems.base.errors import ProvenanceError, UserError
from ems.base.locks import exclusive
from ems.base.messages import Say, nearest, quiet
from ems.base.process import CommandFailed, uv
from ems.provenance import code as provenance
from ems.provenance import repository, seal, wishes
from ems.provenance.code import Code

LOCK = "requirements.txt"
WISHES = "requirements.in"
PYTHON = "python-version"
MARKER = "ems-environment.txt"
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

_INDEX_OPTION = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--trusted-host)\b")
_PINNED = re.compile(r"[A-Za-z0-9][\w.-]*\s?(\[[^\]]*\])?\s?==\s?[A-Za-z0-9][\w.!+-]*\s?(;.*)?")
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)\s?(?:\[[^\]]*\])?\s?==\s?([\w.!+-]+)\s?(;.*)?")
_HASH = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")
_VERSION = re.compile(r"3\.\d+(\.\d+)?", re.ASCII)
DASK = ("dask", "distributed")


@dataclass(frozen=True)
class Environment:
    """`lock`: requirements.txt as it is; `python`: MAJOR.MINOR[.PATCH]."""

    name: str
    python: str
    lock: str

    @property
    def digest(self) -> str:
        """SHA-256 of the Python version and what the lock pins; comments, index options and layout do not count."""
        pinned = sorted(line for _, line in wishes.lines(self.lock) if not _INDEX_OPTION.match(line))
        return hashlib.sha256(json.dumps([self.python, pinned]).encode()).hexdigest()


class Findings(NamedTuple):
    """What `check` found, one sentence each, with the file and, where it is known, the line."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def folder(root: Path, name: str) -> Path:
    """The folder of an environment of the lab in `root`; UserError if there is none of that name."""
    found = root / "environments" / name
    known = names(root)
    if name not in known:
        hint = f"A new one is a folder with {PYTHON} and {WISHES}."
        raise UserError(f"{found} is not an environment's folder: {nearest(name, known)}.", hint)
    return found


def names(root: Path) -> list[str]:
    """Names of all environments of the lab in `root`, sorted."""
    return sorted(other.name for other in (root / "environments").glob("*") if other.is_dir())


def from_folder(folder: Path) -> Environment:
    """The environment in a folder as it is now, named like the folder.

    ProvenanceError if lock or Python version is missing, or is not UTF-8.
    """

    def read(name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).is_file() else None

    return _environment(folder.name, read(PYTHON), read(LOCK), f"in {folder}")


def at_commit(git_dir: Path, commit: str, prefix: str, name: str) -> Environment:
    """`environments/NAME` of the lab at `prefix`, "" or "a/b/", of a commit: see `provenance.environment_source`.

    ProvenanceError as of `from_folder`.
    """

    def read(file: str) -> bytes | None:
        return repository.read_file(git_dir, commit, f"{prefix}environments/{name}/{file}")

    return _environment(name, read(PYTHON), read(LOCK), f"in commit {commit[:12]}")


def of(root: Path, code: Code, name: str) -> Environment:
    """The environment that goes with resolved code of the lab in `root`; ProvenanceError as of `from_folder`."""
    return at_commit(*provenance.environment_source(root, code), name)


def _environment(name: str, python: bytes | None, lock: bytes | None, where: str) -> Environment:
    missing = [file for file, content in ((PYTHON, python), (LOCK, lock)) if content is None]
    if python is None or lock is None:
        raise ProvenanceError(
            f"Environment {name!r} has no {' and no '.join(missing)} {where}.",
            f"environments/{name}/ needs {PYTHON} (as 3.11) and {LOCK}, which `ems env lock {name}` writes from "
            f"{WISHES}; then commit them.",
        )
    try:
        return Environment(name, python.decode().strip(), lock.decode())
    except UnicodeDecodeError as error:
        raise ProvenanceError(f"Environment {name!r} {where} is not UTF-8 text: {error}.") from error


def check(environment: Environment) -> Findings:
    """What forbids to build it (errors), and what a cluster's nodes would carry in vain (warnings)."""
    place = f"environments/{environment.name}"
    lines = list(wishes.lines(environment.lock))
    errors = [f"{place}/{LOCK}:{number}: {fault}" for number, line in lines if (fault := _fault(line))]
    errors += [f"{place}/{LOCK}:{number}: {fault}" for number, fault in _doubles(lines, environment.python)]
    errors[:0] = [f"{place}/{PYTHON}:1: {fault}" for fault in _python_faults(environment.python)]
    names = [canonicalize_name(name[0]) for _, line in lines if (name := re.match(r"[\w.-]+", line))]
    sizes = _sizes_mb(environment) if is_built(environment) else {}
    warnings = [_warning(place, name, sizes) for name in names if RENDERING.fullmatch(name)]
    return Findings(tuple(errors), tuple(warnings))


def _python_faults(python: str) -> Iterator[str]:
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
    return f"environments/{environment.name}/{PYTHON}:1: is {python!r}, which uv neither knows nor finds here: {fix}"


def lacks_dask(environment: Environment) -> str:
    """What to say of an environment that cannot compute a sweep; "" if it can."""
    lacking = [name for name in DASK if name not in pinned(environment.lock)]
    place = f"environments/{environment.name}"
    fix = f"add dask[distributed] to {place}/{WISHES}, then: ems env lock {environment.name}"
    return f"{place}/{LOCK}: has no {' and no '.join(lacking)}, which a sweep needs: {fix}" if lacking else ""


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


def _warning(place: str, name: str, sizes: dict[str, float]) -> str:
    size = f" ({sizes[name]:.1f} MB)" if name in sizes else ""
    return f"{place}/{LOCK}: {name}{size} renders data, which the nodes of a cluster never do; notebooks draw"


def _sizes_mb(environment: Environment) -> dict[str, float]:
    """Megabytes on disk of each built distribution, by its canonical name."""
    sizes: dict[str, float] = {}
    for site in built_folder(environment).glob("lib/python*/site-packages"):
        for installed in metadata.distributions(path=[str(site)]):
            name = canonicalize_name(installed.metadata["Name"])
            sizes[name] = sum(file.size or 0 for file in installed.files or ()) / 1e6
    return sizes


def refuse(environment: Environment) -> None:
    """ProvenanceError if the environment cannot be built the same again; it has all faults."""
    if errors := check(environment).errors:
        raise ProvenanceError("\n".join(errors), f"Fix {WISHES}, then: ems env lock {environment.name}")


def lock(folder: Path, upgrade: bool = False) -> None:
    """Pin what requirements.in wishes, with hashes and for every platform, in requirements.txt.

    Keeps versions that are pinned already unless `upgrade`. ProvenanceError if a file is missing, or the wishes
    cannot be locked; the old lock then stays as it was.
    """
    for file, example in ((WISHES, "numpy\nscipy>=1.14"), (PYTHON, "3.11")):
        if not (folder / file).is_file():
            raise ProvenanceError(f"{folder / file} is missing.", f"Write it, for example:\n{example}")
    python = (folder / PYTHON).read_text(encoding="utf-8").strip()
    _refuse_wishes(folder, python)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, LOCK)
        if (folder / LOCK).exists():
            shutil.copyfile(folder / LOCK, target)
        _compile(folder, python, target, ["--upgrade"] if upgrade else [])
        pinned = target.read_text(encoding="utf-8")
    refuse(Environment(folder.name, python, pinned))
    aside.write(folder / LOCK, pinned)


def _refuse_wishes(folder: Path, python: str) -> None:
    place = f"environments/{folder.name}"
    found = [f"{place}/{PYTHON}:1: {fault}" for fault in _python_faults(python)]
    text = (folder / WISHES).read_text(encoding="utf-8", errors="replace")
    found += [f"{place}/{WISHES}:{number}: {fault}" for number, fault in wishes.options(text)]
    if found:
        raise ProvenanceError("\n".join(found))


def _compile(folder: Path, python: str, target: Path, options: list[str]) -> None:
    lasting = ["--universal", "--generate-hashes", "--no-emit-index-url", "--no-header", "--python-version", python]
    try:
        uv("pip", "compile", "--quiet", *lasting, *options, "--output-file", target, WISHES, cwd=folder)
    except CommandFailed as error:
        hint = "Correct it, or try again with the network: packages and their hashes come from the package index."
        raise ProvenanceError(f"{folder / WISHES} cannot be locked:\n{error.stderr.strip()}", hint) from error


def built_folder(environment: Environment) -> Path:
    """Where it is, or would be, built on this machine."""
    machine = f"{sys.platform}-{platform.machine().lower()}"
    return cache_dir() / "environments" / f"{environment.digest}-{machine}"


def is_built(environment: Environment) -> bool:
    """Whether a build ended, and the interpreter that it stands on is still there."""
    built = built_folder(environment)
    return (built / MARKER).is_file() and python_path(built).exists()


def is_intact(folder: Path) -> bool:
    """Whether a built environment is as it was built, and its interpreter is still there."""
    return seal.changes(folder) == [] and python_path(folder).exists()


def bin_path(folder: Path) -> Path:
    """The folder of the programs of a built environment."""
    return folder / "bin"


def python_path(folder: Path) -> Path:
    """The interpreter of a built environment."""
    return bin_path(folder) / "python"


def build(environment: Environment, say: Say = quiet) -> Path:
    """The folder of the ready virtual environment, built if it is not there or not as it was; says steps to `say`.

    ProvenanceError: the lock is refused, the interpreter or a package could not be obtained. Safe to call from many
    processes.
    """
    final = built_folder(environment)
    if is_intact(final):
        return final
    refuse(environment)

    def tell(step: str) -> None:
        say(f"environment {environment.name}: {step}")

    with exclusive(final.with_name(f"{final.name}.lock"), lambda: tell("another process builds it")):
        if not is_intact(final):
            _tell_changes(final, tell)
            _replace(final, environment, tell)
    tell("ready")
    return final


def _tell_changes(built: Path, say: Say) -> None:
    changed = seal.changes(built)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        say(f"was changed since it was built ({changed[0]}{more}): building it anew")


def _replace(final: Path, environment: Environment, say: Say) -> None:
    """Jobs that use the old tree find the new one in its place: it has the same packages."""
    for remains in final.parent.glob(f"{final.name}.*.part"):
        seal.remove(remains)
    part = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
    _make(environment, part, say)
    seal.seal(part)
    old = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
    if final.exists():
        final.rename(old)
    part.rename(final)
    seal.remove(old)


def _make(environment: Environment, folder: Path, say: Say) -> None:
    say(f"Python {environment.python}")
    try:
        options = ("--quiet", "--no-project", "--relocatable", "--python", environment.python)
        uv("venv", *options, folder, cwd=folder.parent)
    except CommandFailed as error:
        python, name = environment.python, environment.name
        message = f"Python {python} of environment {name!r} could not be obtained:"
        hint = (
            f"Install it (uv python install {python}; Debian: apt-get install python{python}; Mac: brew install "
            f"python@{python}). Or write another version into environments/{name}/{PYTHON}, then `ems env lock {name}` "
            "and commit both: with another Python it is another experiment."
        )
        raise ProvenanceError(f"{message}\n{error.stderr.strip()}", hint) from error
    wanted = folder / MARKER
    unfinished = wanted.with_suffix(".part")
    unfinished.write_text(environment.lock, encoding="utf-8")
    say(f"{len(list(wishes.lines(environment.lock)))} packages")
    try:
        options = ("--quiet", "--require-hashes", "--allow-empty-requirements", "--python", str(python_path(folder)))
        # Copies: links would let a job write into uv's cache. Compiled now, as nothing can be written there later.
        uv("pip", "sync", *options, "--link-mode", "copy", "--compile-bytecode", unfinished, cwd=folder)
    except CommandFailed as error:
        hint = "Try again with the network; a lock whose files are gone is renewed by `ems env lock --upgrade`."
        message = f"The packages of environment {environment.name!r} cannot be installed:"
        raise ProvenanceError(f"{message}\n{error.stderr.strip()}", hint) from error
    aside.publish(unfinished, wanted)
