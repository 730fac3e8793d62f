"""The engines that EMS is tested with."""

from __future__ import annotations

import os

import pytest

from ems.engine import install
from tests.engine import oldest


@pytest.fixture(params=["newest", "oldest"])
def either_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of both, first on PATH; its version."""
    folder = oldest.ensure() if request.param == "oldest" else install.ensure()
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    return install.version(folder)
