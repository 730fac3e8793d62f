"""On which kind of file system something lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "webdav", "fuse.sshfs", "lustre", "beegfs", "gpfs", "ceph"}
)


def mounted() -> dict[str, str]:
    """Type by mount point, of all that is mounted here."""
    import psutil  # which not every Python has that asks for a name alone

    return {disk.mountpoint: disk.fstype for disk in psutil.disk_partitions(all=True)}


def filesystem(path: Path, mounts: Mapping[str, str]) -> str:
    """The type of file system that `path` lies on; `mounts`: type by mount point."""
    real = path.resolve()
    return next((mounts[str(folder)] for folder in (real, *real.parents) if str(folder) in mounts), "")


def network(path: Path) -> str:
    """The type of the network file system that `path` lies on; "" if it lies on none."""
    kind = filesystem(path, mounted())
    return kind if kind in NETWORK else ""
