"""A lab on SQLite whose runs are on a server far away: `ems status` of many of them, and a day that nobody looked.

python -m benchmarks.away [RUNS] [SECONDS]     as root on Linux: it starts an sshd on loopback

Each run has stored a batch of ten rows since the last look; then one stored such a batch each second. What the agents
there do to write them is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from dataclasses import replace
from pathlib import Path

from benchmarks.sqlite_rows import claimed
from ems.base import aside
from ems.base.private import make_folder
from ems.cli import scaffold
from ems.clusters import shipping
from ems.clusters.sent import SENT
from ems.clusters.server.place import Server
from ems.databases import Claim, ClusterRow, Experiment, Outcome, State
from ems.databases.states import ELSEWHERE_S
from ems.node.environments.ready import CODE
from ems.node.mailbox.database import Mailbox
from ems.spool.batch import Batch, Column
from tests.clusters.ssh_server import SshServer, client, started

DOUBLES, ROWS = 12, 10
RUNS, SECONDS = 50, 86_400
LOOKS = 3


class Away:
    """The lab, and its server."""

    def __init__(self, folder: Path, server: SshServer) -> None:
        self.lab, self.server, self.place = scaffold.init(folder, "away"), server, Server()
        with self.lab.database() as database:
            self.first = claimed(database).experiment_id
            database.upsert(ClusterRow("blade", "server", json.dumps({"host": server.name})))

    def begun(self, number: int) -> tuple[Experiment, Mailbox]:
        """A run that was sent there, and that an agent there has taken."""
        with self.lab.database() as database:
            first = database.experiment(self.first)
            assert first
            row = replace(first.registration, id=f"{number:032x}", stack=f"run{number}", cluster="blade")
            experiment = database.register(replace(row, spec=json.dumps({"cluster": {"stack": "blade"}})))
        there = self.server.home / "ems/runs" / experiment.id
        there.mkdir(parents=True)
        shipping.zip_code(there / CODE)
        mailbox = Mailbox(there)
        self.own()
        make_folder(self.lab.run_dir(experiment.id))
        aside.write(self.lab.run_dir(experiment.id) / SENT, str(there))
        self.place.fetch(self.lab, experiment)
        return experiment, mailbox

    def own(self) -> None:
        """What is there is the user's."""
        subprocess.run(["chown", "-R", self.server.user, self.server.home / "ems"], check=True)

    def left(self, experiment: Experiment) -> list[Path]:
        """The batches that wait there."""
        return list((self.server.home / "ems/runs" / experiment.id / "mailbox/outbox").iterdir())

    def sessions(self) -> int:
        """How many commands the server was asked for, ever."""
        return (self.server.folder / "sshd.log").read_text(errors="replace").count("Starting session: command")


def batch(number: int) -> Batch:
    """The rows of the points that come after those of the batches before."""
    points = range(number * ROWS, (number + 1) * ROWS)
    values = array("d", (point / 7 for point in points))
    columns = tuple(Column(f"x{k}", "float64", values) for k in range(DOUBLES))
    return Batch(array("q", points), array("q", bytes(8 * ROWS)), columns, replaces=tuple(points))


def taken(mailbox: Mailbox, experiment: Experiment) -> Claim:
    claim = mailbox.claim(experiment.id, agent="a", lease_s=ELSEWHERE_S)
    assert claim
    return claim


def look_at_many(away: Away, runs: int) -> None:
    begun = [away.begun(number) for number in range(1, runs + 1)]
    claims = [taken(mailbox, experiment) for experiment, mailbox in begun]
    for look in range(LOOKS):
        for (_, mailbox), claim in zip(begun, claims, strict=True):
            mailbox.store(claim, batch(look))
        away.own()
        before, began = away.sessions(), time.perf_counter()
        subprocess.run([sys.executable, "-m", "ems.cli", "status"], cwd=away.lab.root, check=True, capture_output=True)
        took_s, asked = time.perf_counter() - began, away.sessions() - before
        left = sum(len(away.left(experiment)) for experiment, _ in begun)
        print(f"`ems status` of {runs} runs: {took_s:.2f} s, {asked} commands there, {left} batches left there")


def stay_away(away: Away, seconds: int) -> None:
    experiment, mailbox = away.begun(0)
    claim = taken(mailbox, experiment)
    for second in range(seconds):
        mailbox.store(claim, batch(second))
    mailbox.release(claim, Outcome(State.SUCCEEDED, seconds * ROWS, 0))
    away.own()
    before, began = away.sessions(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "ems.cli", "sync"], cwd=away.lab.root, check=True, capture_output=True)
    took_s, asked = time.perf_counter() - began, away.sessions() - before
    with away.lab.database() as database:
        found = database.experiment(experiment.id)
    assert found
    lost, memory_mb = seconds * ROWS - found.rows_stored, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"{seconds:,} batches of a day: {lost} rows lost, {took_s:.0f} s, {asked} commands there, {memory_mb:.0f} MB")
    print(f"{found.state}, {len(away.left(experiment))} batches left there")


def main() -> None:
    runs, seconds = (*map(int, sys.argv[1:]), *(RUNS, SECONDS)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder, started() as server:
        os.environ |= client(server)
        away = Away(Path(folder, "lab"), server)
        look_at_many(away, runs)
        stay_away(away, seconds)


if __name__ == "__main__":
    main()
