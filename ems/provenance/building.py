"""What uv makes for an environment: its lock, and the folder that holds it.

Built aside and renamed, once per digest and kind of machine. The virtual environments are uv's *relocatable* ones,
whose scripts find their interpreter relative to themselves, so the rename breaks nothing. A build in its final place
would need no such care, but there the uv of a killed build, which outlives it, could write into the next one.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from ems.base import aside, seal
from ems.base.errors import ProvenanceError
from ems.base.locks import exclusive
from ems.base.messages import Say, counted, quiet, some
from ems.base.process import CommandFailed, uv
from ems.provenance import wishes
from ems.provenance.environment import LOCK, MARKER, PYTHON, WISHES, Environment, built_folder, is_intact, python_path
from ems.provenance.pins import python_faults, refuse


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
    found = [f"{place}/{PYTHON}:1: {fault}" for fault in python_faults(python)]
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
        say(f"was changed since it was built ({some(changed, 1)}): building it anew")


def _replace(final: Path, environment: Environment, say: Say) -> None:
    """Jobs that use the old tree find the new one in its place: it has the same packages."""
    for remains in final.parent.glob(f"{final.name}.*.part"):
        _remove(remains)
    part = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
    _make(environment, part, say)
    seal.seal(part)
    old = final.with_name(f"{final.name}.{uuid.uuid4().hex}.part")
    if final.exists():
        final.rename(old)
    part.rename(final)
    _remove(old)


def _remove(folder: Path) -> None:
    with suppress(OSError):  # the uv of a killed build may still write there; the next build removes it
        aside.remove(folder)


def _make(environment: Environment, folder: Path, say: Say) -> None:
    say(f"Python {environment.python}")
    try:
        options = ("--quiet", "--no-project", "--relocatable", "--python", environment.python)
        uv("venv", *options, folder, cwd=folder.parent)
    except CommandFailed as error:
        python, name = environment.python, environment.name
        message = f"Python {python} of environment {name!r} could not be obtained:"
        where = "environment.python of the stack file" if environment.file else f"environments/{name}/{PYTHON}"
        hint = (
            f"Install it (uv python install {python}; Debian: apt-get install python{python}; Mac: brew install "
            f"python@{python}). Or write another version into {where}, then `{environment.fix()}` "
            "and commit both: with another Python it is another experiment."
        )
        raise ProvenanceError(f"{message}\n{error.stderr.strip()}", hint) from error
    wanted = folder / MARKER
    unfinished = wanted.with_suffix(".part")
    unfinished.write_text(environment.lock, encoding="utf-8")
    say(counted(len(list(wishes.lines(environment.lock))), "package"))
    try:
        options = ("--quiet", "--require-hashes", "--allow-empty-requirements", "--python", str(python_path(folder)))
        # Copies: links would let a job write into uv's cache. Compiled now, as nothing can be written there later.
        uv("pip", "sync", *options, "--link-mode", "copy", "--compile-bytecode", unfinished, cwd=folder)
    except CommandFailed as error:
        raise _not_installed(environment, error.stderr.strip()) from error
    aside.publish(unfinished, wanted)


def _not_installed(environment: Environment, said: str) -> ProvenanceError:
    message = f"The packages of environment {environment.name!r} cannot be installed:\n{said}"
    again = f"{environment.fix()} --upgrade"
    if "hash mismatch" in said.lower():
        hint = f"A file is not the one that was pinned. Where you trust it: {again}"
    else:
        hint = f"Try again with the network; a lock whose files are gone is renewed by `{again}`."
    return ProvenanceError(message, hint)
