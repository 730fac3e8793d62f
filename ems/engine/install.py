"""The Pulumi engine that is used: one on PATH or in the user's cache, else it is built (`build`; 5 minutes, once)."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

from ems.base import aside
from ems.base.cache import cache_dir
from ems.base.errors import EngineError
from ems.base.locks import exclusive
from ems.base.messages import Say, quiet
from ems.base.private import make_folder
from ems.base.process import CommandFailed, run
from ems.engine.build import SOURCES, build

VERSION = "3.274.1"  # the one that is built, and the newest one that EMS is tested with
OLDEST = "3.200.0"  # tested as well
PROGRAMS = ("pulumi", "pulumi-language-python", "pulumi-language-python-exec")
OF_ANOTHER_MACHINE = {126, 127}  # exit codes of what cannot be started at all


def find() -> Path | None:
    """The folder of a usable engine, without fetching or building anything.

    EngineError if the one in the cache is whole but does not run, as with too little memory: another would not either.
    """
    on_path = shutil.which("pulumi")
    if on_path and _usable(Path(on_path).parent):
        return Path(on_path).parent
    return _cached_bin() if _usable(_cached_bin(), complain=True) else None


def ensure(say: Say = quiet) -> Path:
    """The folder of a usable engine; builds one if there is none. EngineError as of `find`, or why it cannot be."""
    found = find()
    if found:
        return found
    with exclusive(_cached_bin().parents[1] / f"{VERSION}.lock"):
        return find() or _install(say)


def version(folder: Path) -> str:
    """The version of the engine in `folder`, as 3.274.1; CommandFailed if it does not run."""
    words = run([folder / "pulumi", "version"], env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"})
    return words.strip().removeprefix("v")


def numbers(version: str) -> tuple[int, ...]:
    """The version to compare by; () of what is none."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    return tuple(int(number) for number in found.groups()) if found else ()


def environment(folder: Path, root: Path) -> dict[str, str]:
    """What a `pulumi` process of the lab at `root` needs: PATH, and backend and passphrase unless they are set."""
    here, env = Path(sys.executable).parent, settings(root)
    if env.get("PULUMI_BACKEND_URL") == _own_backend(root):
        make_folder(_own_state(root))
    return env | {"PATH": os.pathsep.join([str(here), str(folder), os.environ.get("PATH", os.defpath)])}


def settings(root: Path) -> dict[str, str]:
    """The same but for PATH, which needs to know where the program is. Makes no folder."""
    env = dict(os.environ)
    for setting in ("PULUMI_SKIP_UPDATE_CHECK", "PULUMI_SUPPRESS_COPILOT_LINK", "PULUMI_SUPPRESS_NEO_LINK"):
        env.setdefault(setting, "true")
    if "PULUMI_BACKEND_URL" not in env and not _names_a_backend(root):
        env["PULUMI_BACKEND_URL"] = _own_backend(root)
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & env.keys():
        env["PULUMI_CONFIG_PASSPHRASE"] = ""
    return env


def _own_backend(root: Path) -> str:
    return f"file://{quote(str(_own_state(root)))}"


def _own_state(root: Path) -> Path:
    return root / ".ems" / "state"


def _names_a_backend(root: Path) -> bool:
    return re.search(r"^backend:", (root / "Pulumi.yaml").read_text(encoding="utf-8"), re.MULTILINE) is not None


def _cached_bin() -> Path:
    return cache_dir() / "pulumi" / VERSION / "bin"


def _usable(folder: Path, *, complain: bool = False) -> bool:
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    if not (folder / "pulumi").exists() or not all(shutil.which(program, path=path) for program in PROGRAMS):
        return False
    try:
        return numbers(OLDEST) <= numbers(version(folder)) < (4,)
    except CommandFailed as error:
        if complain and error.code not in OF_ANOTHER_MACHINE:
            hint = f"Is its memory limited? See `ulimit -v`. If the program itself is broken: rm -r {folder.parent}"
            said = next(iter((error.stderr or error.stdout).strip().splitlines()), f"exit code {error.code}")
            raise EngineError(f"Pulumi's engine in {folder} does not run: {said}", hint) from error
        return False


def _install(say: Say) -> Path:
    try:
        with aside.making(_cached_bin().parent) as folder:
            build(VERSION, SOURCES / "cli", folder, say)
    except CommandFailed as error:
        raise EngineError(
            f"Pulumi's engine is missing and could not be built: {error.message.strip().splitlines()[-1]}",
            f"Put `pulumi` {OLDEST} to {VERSION} on PATH (pulumi.com/docs/install), "
            "or let this machine reach a Go module proxy, and a package index where it has no Go.",
        ) from error
    return _cached_bin()


def print_line(line: str) -> None:
    """Say it on standard error: on a terminal in place of the last line, elsewhere only the first of its kind."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
    elif not re.search(r": [1-9]", line):
        sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    ensure(print_line)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
