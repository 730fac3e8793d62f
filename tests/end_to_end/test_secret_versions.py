"""A lab whose database asks for a password that a secret store has: neither state, logs nor bundles hold it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ems.engine import install as engine
from tests.databases.secret_stores import LATEST, PASSWORD, Stores
from tests.databases.test_password_from import address, own  # noqa: F401
from tests.end_to_end.conftest import User

pytestmark = pytest.mark.xdist_group("secret_versions")


@pytest.fixture(params=[pytest.param("google", marks=pytest.mark.drill), "aws"])
def somebody(request: pytest.FixtureRequest, address: str, tmp_path: Path) -> User:  # noqa: F811
    engine.ensure()
    User(tmp_path).ems("init", "lab")
    somebody = User(tmp_path / "lab")
    text = (somebody.root / "Pulumi.yaml").read_text()
    somebody.write("Pulumi.yaml", text.replace("sqlite:///.ems/ems.db", address + LATEST[request.param]))
    somebody.commit("Another database")
    request.addfinalizer(somebody.end)
    return somebody


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files, and of what archives hold."""
    found = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            found |= {f"{path}/{name}": archive.read(name) for name in archive.namelist()}
    return found


def test_the_password_is_nowhere(somebody: User, stores: Stores) -> None:
    somebody.experiment(rows=6)
    commands = [["up", "lab"], ["up", "e"], ["status", "--json"], ["logs", "e"], ["database", "check"], ["read", "e"]]
    said = ""
    for words in commands:
        done = somebody.ems(*words)
        said += done.stdout + done.stderr
    stores.fault = "denied"
    refused = somebody.ems("results", "e", expect=4)
    assert "password cannot be read" in refused.stderr
    kept = contents(somebody.root)
    assert any(path.endswith("agent.json") for path in kept) and any("/.ems/state/" in path for path in kept)
    assert PASSWORD not in said + refused.stdout + refused.stderr
    assert not [path for path, content in kept.items() if PASSWORD.encode() in content]
