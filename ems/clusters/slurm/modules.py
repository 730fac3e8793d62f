"""Modules of a machine (Lmod, Environment Modules): whether they are there, and what they change for a job."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from ems.base.errors import UserError

LOAD_S = 60.0
LOAD = 'for name in "$@"; do module load "$name" >&2 || { echo "$name"; exit 87; }; done'
CHANGES = f"env -0; printf '\\1\\0'; {LOAD}; env -0"
MISSING = 87
QUIETLY = 'exec 3>&1 >&2; exec bash -l -c "$@"'  # a profile may print
BEGIN = "exec >&3 3>&-; printf '\\1' >&2; "  # from here on it is not the profile that speaks
OWN = ("_", "BASH_FUNC", "LMOD", "MODULE", "LOADEDMODULES", "SHLVL", "PWD", "OLDPWD", "PYTHON")


def refuse(names: Sequence[str], key: str) -> None:
    """UserError, if one of them cannot be loaded here; where the machine is slow to say, nothing is refused."""
    done = _bash(LOAD, names)
    if done is None or done.returncode != MISSING:
        return
    name = done.stdout.decode(errors="replace").strip()
    said = " ".join(done.stderr.partition(b"\1")[2].decode(errors="replace").split())
    raise UserError(
        f"{key}.modules has {name!r}, which cannot be loaded here: {said}", f"See which there are: module avail {name}"
    )


def changes(names: Sequence[str]) -> dict[str, str]:
    """The variables that these modules set, as a job is to see them: of PATH, the folders that are added.

    Python's own are not among them: an environment has all that it needs.
    """
    done = _bash(CHANGES, names)
    if done is None or done.returncode:
        return {}
    before, _, after = (part.rstrip(b"\0") for part in done.stdout.partition(b"\1\0"))
    then, now = _variables(before), _variables(after)
    changed = {name: text for name, text in now.items() if then.get(name) != text and not name.startswith(OWN)}
    if "PATH" in changed:
        old = then.get("PATH", "").split(":")
        changed["PATH"] = ":".join(folder for folder in now["PATH"].split(":") if folder not in old)
    return changed


def _bash(script: str, names: Sequence[str]) -> subprocess.CompletedProcess[bytes] | None:
    """In a login shell, where `module` is; None if there is nothing to do, or it takes too long."""
    if not names:
        return None
    words = ["sh", "-c", QUIETLY, "sh", BEGIN + script, "bash", *names]
    kept = {name: text for name, text in os.environ.items() if name in {"HOME", "USER", "LOGNAME", "MODULEPATH"}}
    try:
        return subprocess.run(
            words, env=kept, capture_output=True, timeout=LOAD_S, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None


def _variables(text: bytes) -> Mapping[str, str]:
    pairs = (pair.decode(errors="surrogateescape").partition("=") for pair in text.split(b"\0") if pair)
    return {name: value for name, _, value in pairs}
