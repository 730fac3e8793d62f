"""The variables that a job sees: built from scratch, so that nothing of the caller's shell leaks in."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

CHECKPOINT = "EMS_CHECKPOINT_DIR"
_KEPT = {"HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "TZ", "SHELL"}
_FOLDERS = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
_MAC_FOLDERS = ["/opt/homebrew/bin"]
_THREADS = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
]


def job_environment(
    environment: Path,
    caller: Mapping[str, str],
    threads: int,
    ems: Mapping[str, str],
    own: Mapping[str, str],
    loaded: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The job's variables.

    `environment`: folder of the experiment's environment, whose `bin` comes first; `ems`: the `EMS_…` ones; `own`: the
    spec's `env:`, which may change any but those; `loaded`: what modules of the machine have set.
    """
    modules = dict(loaded or {})
    added = modules.pop("PATH", "").split(":")
    folders = [
        str(environment / "bin"),
        *filter(None, added),
        *(_MAC_FOLDERS if sys.platform == "darwin" else []),
        *_FOLDERS,
    ]
    return {
        **{name: value for name, value in caller.items() if name in _KEPT or name.startswith("LC_")},
        **modules,
        "PATH": ":".join(folders),
        "VIRTUAL_ENV": str(environment),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        **dict.fromkeys(_THREADS, str(threads)),
        **own,
        **ems,
    }
