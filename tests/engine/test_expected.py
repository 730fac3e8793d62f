"""What `ems up` has found out of a stack holds in its program, unless the file was changed meanwhile."""

import json

import pytest

from ems import clusters
from ems.base.errors import ProvenanceError
from ems.engine import lifecycle, preflight, program
from ems.lab.stacks import StackFiles
from ems.stack import yamlfile
from tests.conftest import commit


@pytest.fixture
def declared(here, monkeypatch):
    """The row that the program of `pi` declares: of what the file says by now, as Pulumi hands it over."""

    class Config:
        def __init__(self, _namespace):
            self.said, _ = yamlfile.read(here.stack_file("pi"))

        def get(self, kind):
            text = json.dumps(self.said["config"].get(f"ems:{kind}"))
            return None if text == "null" else text.replace("2.0", "2")

    rows = []
    monkeypatch.setattr(program.pulumi, "Config", Config)
    plan = {"due": False, "missing": "[]", "new": False, "reused": 0, "attempt": 1, "known": False}
    monkeypatch.setattr(program, "_invoke", lambda *_: plan)
    monkeypatch.setattr(program, "_resources", lambda row, *_, **__: rows.append(row))

    def now(expected):
        program.declare(here, "pi", lambda _: None, expected)
        return rows[-1]

    return now


def test_the_program_takes_what_was_found_out_and_asks_git_nothing(here, declared, monkeypatch):
    file = here.stack_file("pi")
    file.write_text(file.read_text().replace("seed: 1", "seed: 2.0"))
    commit(here.root)
    stacks = StackFiles(here, clusters.settings())
    resolved = preflight.require(stacks, "pi")
    expected = lifecycle._expected(stacks, "pi", resolved)
    assert declared(None) == resolved.row
    monkeypatch.setattr(program, "opened", None)
    assert declared(expected) is resolved.row


@pytest.mark.parametrize("change", [("seed: 2", "seed: 3"), ("seed: 2", "seed: true"), ("title: pi", "title: other")])
def test_a_file_that_was_changed_since_is_looked_at_again(here, declared, change):
    file = here.stack_file("pi")
    file.write_text(file.read_text().replace("seed: 1", "seed: 2"))
    commit(here.root)
    stacks = StackFiles(here, clusters.settings())
    expected = lifecycle._expected(stacks, "pi", preflight.require(stacks, "pi"))
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(ProvenanceError, match=r"M stacks/Pulumi\.pi\.yaml"):
        declared(expected)
    commit(here.root)
    assert declared(expected).spec != expected.row.spec
