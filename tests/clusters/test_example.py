"""The place that CONTRIBUTING.md shows keeps the contract, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

from ems.clusters import Place
from ems.databases import State
from tests.clusters.test_laptop import OnThisMachine

ROOT = Path(__file__).parents[2]


def shown() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Add a place") : text.index("## Add a database")]
    (code,) = re.findall(r"^```python\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return code


class TestExample(OnThisMachine):
    @pytest.fixture
    def place(self, here):
        module: dict[str, object] = {}
        exec(compile(shown(), "CONTRIBUTING.md", "exec"), module)
        assert isinstance(module["PLACE"], Place)
        return module["PLACE"]

    def test_its_agents_have_the_lowest_priority(self, place, here):
        experiment = self.prepared(place, here, wait_s=600)
        self.until(place, here, experiment, lambda now: now.state is State.RUNNING)
        (agent,) = self.agents(here, experiment)
        assert psutil.Process(agent.pid).nice() == 19
        self.kill(here, experiment)


def test_it_is_short():
    assert len(shown().splitlines()) <= 46
