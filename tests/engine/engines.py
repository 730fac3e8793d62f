"""The engines that EMS is tested with."""

from __future__ import annotations

import os

import pytest

from ems.engine import install
from tests.engine import oldest


@pytest.fixture(params=["newest", "oldest"])
def either_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of both, first on PATH; its version."""
    return _first(request.param, monkeypatch)


@pytest.fixture(params=["newest", pytest.param("oldest", marks=pytest.mark.drill)])
def an_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same where the other one takes long: it is one of the drills."""
    return _first(request.param, monkeypatch)


def _first(which: str, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = oldest.ensure() if which == "oldest" else install.ensure()
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    return install.version(folder)
