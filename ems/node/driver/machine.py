"""What kind of machine and system a process runs on. Standard library alone, Python 3.9 or newer.

Nothing says whose it is: no name of a host or a person, no address, no path, no serial number.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, TypedDict

SYSCTL_S = 5.0


class Machine(TypedDict):
    """The hardware."""

    cpu: Annotated[str, "Model of the processor; empty if it is not known."]
    flags: Annotated[list[str], "What the processor can do, sorted, as `avx2`: libraries choose their code by it."]
    cores: Annotated[int, "How many processors the system sees."]
    memory_gb: Annotated[float, "Memory in GB."]
    architecture: Annotated[str, "Kind of processor, as `x86_64`."]


class System(TypedDict):
    """The operating system and its C library."""

    name: Annotated[str, "Name of the kernel, as `Linux`."]
    release: Annotated[str, "Release of the kernel."]
    distribution: Annotated[str, "Name and version for people; empty if it is not known."]
    libc: Annotated[str, "Name and version of the C library, as `glibc 2.36`; empty if it is not known."]


@lru_cache(maxsize=1)
def machine() -> Machine:
    """The hardware of this machine; found out once per process."""
    cpu, flags, memory_bytes = _mac() if sys.platform == "darwin" else _linux()
    return {
        "cpu": cpu,
        "flags": flags,
        "cores": os.cpu_count() or 1,
        "memory_gb": round(memory_bytes / 1e9, 1),
        "architecture": platform.machine(),
    }


@lru_cache(maxsize=1)
def system() -> System:
    """The operating system of this machine; found out once per process."""
    return {
        "name": platform.system(),
        "release": platform.release(),
        "distribution": _distribution(),
        "libc": "libSystem" if sys.platform == "darwin" else _libc(),
    }


def _linux() -> tuple[str, list[str], int]:
    file = Path("/proc/cpuinfo")
    cpu, flags = of_cpuinfo(file.read_text(encoding="utf-8", errors="replace") if file.exists() else "")
    return cpu, flags, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def of_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Model and flags of the first processor in Linux's /proc/cpuinfo, whose keys differ between architectures."""
    values = _pairs(text)
    arm = ", ".join(f"{key} {values[f'CPU {key}']}" for key in ("implementer", "part") if f"CPU {key}" in values)
    named = (values.get(key, "") for key in ("model name", "cpu model", "cpu"))
    flags = values.get("flags", "") or values.get("Features", "")
    return next(filter(None, named), arm), sorted(set(flags.split()))


def _mac() -> tuple[str, list[str], int]:
    asked = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional", "hw.memsize"]
    told = subprocess.run(asked, capture_output=True, text=True, timeout=SYSCTL_S, check=False)
    return of_sysctl(told.stdout)


def of_sysctl(text: str) -> tuple[str, list[str], int]:
    """Model, flags and bytes of memory, as a Mac's sysctl prints them."""
    values = _pairs(text)
    names = ("features", "leaf7_features", "extfeatures")
    flags = {flag for name in names for flag in values.get(f"machdep.cpu.{name}", "").split()}
    optional = "hw.optional."
    flags |= {name[len(optional) :] for name, value in values.items() if name.startswith(optional) and value == "1"}
    return values.get("machdep.cpu.brand_string", ""), sorted(flags), int(values.get("hw.memsize", 0))


def _pairs(text: str) -> dict[str, str]:
    """The values of lines such as `name : value`; of several with one name, the first."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found


def _distribution() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    for file in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        if file.exists():
            return of_os_release(file.read_text(encoding="utf-8", errors="replace"))
    return ""


def of_os_release(text: str) -> str:
    """The distribution's name and version, as an os-release file has them; "" if it does not."""
    values = dict(line.partition("=")[::2] for line in text.splitlines())
    return " ".join(shlex.split(values.get("PRETTY_NAME", "")))


def _libc() -> str:
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):  # another C library
        glibc = None
    return glibc or " ".join(platform.libc_ver()).strip()
