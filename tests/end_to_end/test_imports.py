"""Imported rows beside stacks, with the real engine."""

from __future__ import annotations

import json

from tests.end_to_end.conftest import User


def test_a_stack_file_never_takes_the_name_of_imported_rows(user: User) -> None:
    user.write("old.csv", "i,value\n0,0.5\n1,1.5\n")
    user.ems("import", "old.csv", "--as", "e", "--project", "first", "--funding", "unfunded")
    user.experiment()
    before = user.query("SELECT * FROM experiment"), user.query("SELECT * FROM e")
    user.pulumi("stack", "init", "e")
    for said in (user.ems("up", "e", expect=2).stderr, user.fails("up", "--yes", "--stack", "e")):
        assert "e is the name of imported rows" in " ".join(said.split())
    assert (user.query("SELECT * FROM experiment"), user.query("SELECT * FROM e")) == before
    (user.root / "stacks/Pulumi.e.yaml").rename(user.root / "stacks/Pulumi.again.yaml")
    user.commit("Another name")
    user.ems("up")
    assert sorted(user.rows()) == sorted([(0, 0.5), (1, 1.5), *((i, i / 3) for i in range(6))])
    certificate = json.loads(user.ems("teardown", "--all", "--json").stdout)
    states = {stack["stack"]: (stack["state"], stack["result"]) for stack in certificate["stacks"]}
    assert states["e"] == ("imported", "nothing left") and states["again"][0] == "succeeded"
    user.ems("up", "e")
    assert "imported" in user.ems("status").stdout
