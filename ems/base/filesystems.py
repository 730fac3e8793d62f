"""On which kind of file system something lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph"}
)

LINUX = Path("/proc/self/mounts")
ESCAPED = re.compile(r"\\([0-7]{3})")  # a space, a tab, in the name of a folder


def mounted() -> dict[str, str]:
    """Type by mount point, of all that is mounted here."""
    try:
        lines = LINUX.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        import psutil  # which a Python has not that has nothing installed

        return {disk.mountpoint: disk.fstype for disk in psutil.disk_partitions(all=True)}
    return {ESCAPED.sub(lambda found: chr(int(found[1], 8)), words[1]): words[2] for words in map(str.split, lines)}


def filesystem(path: Path, mounts: Mapping[str, str]) -> str:
    """The type of file system that `path` lies on; `mounts`: type by mount point."""
    real = path.resolve()
    return next((mounts[str(folder)] for folder in (real, *real.parents) if str(folder) in mounts), "")


def network(path: Path) -> str:
    """The type of the network file system that `path` lies on; "" if it lies on none."""
    kind = filesystem(path, mounted())
    return kind if kind in NETWORK else ""
