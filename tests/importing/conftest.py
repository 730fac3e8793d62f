"""A lab that knows people, projects and accounts, and has no experiment yet."""

from __future__ import annotations

import pytest

from ems.lab import Lab
from tests.importing.bringing import set_up


@pytest.fixture
def lab(here: Lab) -> Lab:
    set_up(here)
    return here
