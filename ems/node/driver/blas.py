"""Which libraries for linear algebra a process has loaded. Standard library alone, Python 3.9 or newer.

The libraries themselves are asked, by the functions that they export; none is loaded for it. The same one may be there
under several names: wheels of numpy and scipy bring their own, with prefixes and suffixes in the names of functions.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypedDict

FILES = re.compile(r"openblas|^libmkl_rt|^libblis\b|^libc?blas\b")
AFFIXES = tuple(product(("", "scipy_"), ("", "64_", "_64")))


class Blas(TypedDict):
    """A library for linear algebra."""

    library: Annotated[str, "Name and version, as `OpenBLAS 0.3.30`; of an unknown one, the name of its file."]
    kernel: Annotated[str, "Which of its code it has chosen for this processor, as `Haswell`; empty if not known."]
    threads: Annotated[int | None, "How many threads it may use; null if it is not known."]


class _MklVersion(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("major", "minor", "update")),
        *((name, ctypes.c_char_p) for name in ("product", "build", "processor", "platform")),
    )


def blas() -> list[Blas]:
    """Those that this process has loaded by now, each once."""
    found = {tuple(each.items()): each for path in sorted(set(_loaded())) for each in _asked(path)}
    return list(found.values())


def _loaded() -> Iterator[str]:
    """The paths of loaded libraries that may be such ones."""
    paths = _images() if sys.platform == "darwin" else _mapped()
    return (path for path in paths if FILES.search(path.rpartition("/")[2].lower()))


def _mapped() -> Iterator[str]:
    maps = Path("/proc/self/maps")
    for line in maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if maps.exists() else ():
        yield line[line.find("/") :] if "/" in line else ""


def _images() -> Iterator[str]:
    """Of a Mac."""
    loader = ctypes.CDLL(None)
    loader._dyld_get_image_name.restype = ctypes.c_char_p
    for index in range(loader._dyld_image_count()):
        yield os.fsdecode(loader._dyld_get_image_name(index) or b"")


def _asked(path: str) -> list[Blas]:
    try:
        library = ctypes.CDLL(path, mode=os.RTLD_NOLOAD | os.RTLD_NOW)
    except OSError:  # the file was replaced since it was loaded
        return []
    unknown: Blas = {"library": _name(path), "kernel": "", "threads": None}
    return [_openblas(library) or _mkl(library) or _blis(library) or unknown]


def _name(path: str) -> str:
    return "Accelerate" if "/vecLib.framework/" in path else path.rpartition("/")[2]


def _openblas(library: ctypes.CDLL) -> Blas | None:
    for prefix, suffix in AFFIXES:
        config = _text(library, f"{prefix}openblas_get_config{suffix}")
        if config:
            named = re.match(r"OpenBLAS \d\S*", config)
            return {
                "library": named[0] if named else "OpenBLAS",
                "kernel": _text(library, f"{prefix}openblas_get_corename{suffix}"),
                "threads": _number(library, f"{prefix}openblas_get_num_threads{suffix}"),
            }
    return None


def _mkl(library: ctypes.CDLL) -> Blas | None:
    get_version: Any = getattr(library, "MKL_Get_Version", None)
    if get_version is None:
        return None
    found = _MklVersion()
    get_version.argtypes, get_version.restype = [ctypes.POINTER(_MklVersion)], None
    get_version(ctypes.byref(found))
    return {
        "library": f"MKL {found.major}.{found.minor}.{found.update}",
        "kernel": (found.processor or b"").decode("ascii", "replace"),
        "threads": _number(library, "MKL_Get_Max_Threads"),
    }


def _blis(library: ctypes.CDLL) -> Blas | None:
    version = _text(library, "bli_info_get_version_str")
    if not version:
        return None
    threads = _number(library, "bli_thread_get_num_threads") or -1  # -1: as many as its other settings say
    return {
        "library": f"BLIS {version}",
        "kernel": _text(library, "bli_arch_string", _number(library, "bli_arch_query_id")),
        "threads": threads if threads > 0 else None,
    }


def _text(library: ctypes.CDLL, name: str, *numbers: int | None) -> str:
    """What a function says; "" where there is none of that name, or a number for it is not known."""
    function: Any = getattr(library, name, None)
    if function is None or None in numbers:
        return ""
    function.argtypes, function.restype = [ctypes.c_int] * len(numbers), ctypes.c_char_p
    return (function(*numbers) or b"").decode("ascii", "replace")


def _number(library: ctypes.CDLL, name: str) -> int | None:
    function: Any = getattr(library, name, None)
    if function is None:
        return None
    function.argtypes, function.restype = [], ctypes.c_int
    return int(function())
