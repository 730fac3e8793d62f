"""The engine's sources are those that are pinned, or nothing is built."""

from __future__ import annotations

import shutil

import pytest

from ems.base.process import CommandFailed
from ems.engine import build
from ems.engine.install import OLDEST, VERSION


def test_a_module_that_is_not_the_pinned_one_is_not_built(tmp_path, monkeypatch):
    """Nothing runs that was not verified: the digests in go.sum decide, whatever a proxy or a cache answers."""
    sources = tmp_path / "sources"
    shutil.copytree(build.SOURCES, sources)
    lines = (sources / "language/go.sum").read_text().splitlines()
    pinned = next(number for number, line in enumerate(lines) if line.startswith(f"{build.SDK} v3.78.1 h1:"))
    lines[pinned] = lines[pinned].replace("h1:", "h1:A")[: len(lines[pinned])]
    (sources / "language/go.sum").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(build, "SOURCES", sources)
    with pytest.raises(CommandFailed, match=r"checksum mismatch|malformed"):
        build.build(VERSION, sources / "cli", tmp_path / "made", lambda _: None)
    assert not list(tmp_path.glob("made/bin/*"))


@pytest.mark.parametrize("folder, version", [(build.SOURCES / "cli", VERSION), ("tests/engine/oldest", OLDEST)])
def test_the_versions_are_those_of_the_modules(folder, version, pytestconfig):
    modules = (pytestconfig.rootpath / folder / "go.mod").read_text()
    assert f"github.com/pulumi/pulumi/pkg/v3 v{version} " in modules and f"{build.SDK} v{version} " in modules
