"""What a command through `ems.clusters.openssh` costs beside `ssh` itself, through the same shared connection.

As root on Linux, with a real sshd on loopback; half a minute:

    PYTHONPATH=. python benchmarks/openssh.py
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Callable

from ems.clusters.openssh import Host
from tests.clusters.ssh_server import client, started

ROUNDS = 100


def main() -> None:
    with started() as server:
        os.environ["PATH"] = client(server)["PATH"]
        host = Host(server.name, "", unattended=True)
        host.run("true")
        bare = ["ssh", "-S", str(host._socket), server.name, "true"]
        ssh_ms = median_ms(lambda: subprocess.run(bare, check=True, capture_output=True))
        ems_ms = median_ms(lambda: host.run("true"))
        print(f"ssh {ssh_ms:.1f} ms, Host.run {ems_ms:.1f} ms: {ems_ms - ssh_ms:.1f} ms more")
        host.log_out()


def median_ms(call: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return 1000 * statistics.median(took)


if __name__ == "__main__":
    main()
