"""An agent and what other versions of EMS have made: it refuses, with one error, before the run is claimed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest

from ems.base.errors import ProvenanceError
from ems.base.messages import quiet
from ems.clusters import local
from ems.databases import State
from ems.node.agent import protocol
from ems.node.agent.agent import Agent
from ems.node.agent.config import AgentConfig
from ems.spool import encoding
from tests.conftest import registered


def test_the_numbers_are_those_that_are_written():
    assert protocol.BATCH == encoding._MAGIC == f"EMSBAT{protocol.PROTOCOL:02}".encode()


def rebuilt(bundle: Path, old: bytes, new: bytes) -> Path:
    """The bundle with another text in its driver's protocol, under the name of its new bytes."""
    made = io.BytesIO()
    with ZipFile(bundle) as archive, ZipFile(made, "w") as out:
        for name in archive.namelist():
            content = archive.read(name)
            if name == "ems.zip":
                inner = io.BytesIO()
                with ZipFile(io.BytesIO(content)) as own, ZipFile(inner, "w") as changed:
                    for module in own.namelist():
                        text = own.read(module)
                        changed.writestr(module, text.replace(old, new) if module == protocol.FILE else text)
                content = inner.getvalue()
            out.writestr(name, content)
    file = bundle.with_name(f"{hashlib.sha256(made.getvalue()).hexdigest()}.zip")
    file.write_bytes(made.getvalue())
    return file


@pytest.mark.parametrize(("old", "new", "number"), [(b"PROTOCOL = 1", b"PROTOCOL = 7", 7), (b"PROTOCOL = 1", b"", 0)])
def test_a_driver_of_another_version_is_refused_and_one_of_this_is_not(here, old, new, number):
    experiment = registered(here)
    local.prepare(here, experiment.registration, quiet)
    run_dir = here.run_dir(experiment.id)
    config = AgentConfig.read(run_dir)
    protocol.require_driver(Path(config.bundle))
    dataclasses.replace(config, bundle=str(rebuilt(Path(config.bundle), old, new))).write(run_dir)
    with pytest.raises(ProvenanceError, match=rf"driver of EMS .* \(protocol {number}\).*\(protocol 1\)"):
        Agent(run_dir).run()
    with here.database() as database:
        assert database.experiment(experiment.id).state is State.REGISTERED
    local.prepare(here, experiment.registration, quiet)
    assert Agent(run_dir).run() == 0


def test_a_spool_of_another_version_is_refused_and_stays(here):
    experiment = registered(here)
    local.prepare(here, experiment.registration, quiet)
    run_dir = here.run_dir(experiment.id)
    batch = run_dir / "spool-1/00000001.batch"
    batch.parent.mkdir()
    batch.write_bytes(b"EMSBAT02 of tomorrow")
    with pytest.raises(ProvenanceError, match=r"another version of EMS \(b'EMSBAT02'"):
        Agent(run_dir).run()
    assert batch.read_bytes() == b"EMSBAT02 of tomorrow"
    shutil.rmtree(batch.parent)
    assert Agent(run_dir).run() == 0
