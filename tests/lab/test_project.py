"""`Pulumi.yaml` is checked as stack files are: what Pulumi would refuse is told before anything is made."""

from __future__ import annotations

import pytest

from ems.base.errors import StackFileError
from ems.lab import Lab, project

PROVIDERS = "providers:\n    - name: ems\n      path: plugins"
CHANGES = [  # what is changed in a new lab's file, into what, the line and the key of the fault, what is said
    ("name: lab\n", "name: a b\n", 1, "name", 'is "a b": allowed are up to 100 letters'),
    ("name: lab\n", "name: études\n", 1, "name", "without accents"),
    ("name: lab\n", f"name: {'a' * 101}\n", 1, "name", "up to 100"),
    ("name: lab\n", "name: a/b\n", 1, "name", "is"),
    ("description: C", "description: [a] #", 2, "description", "is a list of 1: allowed is text"),
    ("runtime: python", "runtime: nodejs", 3, "runtime", 'is "nodejs": allowed is python'),
    ("runtime: python", "runtime: Python", 3, "runtime", "allowed is python"),
    ("runtime: python", "runtime: [python]", 3, "runtime", "allowed is python"),
    ("runtime: python\n", "", 0, "runtime", "is empty (null): allowed is python"),
    ("runtime: python", "runtime: {name: python, options: {toolchain: pip}}", 3, "runtime.options", "leave it out"),
    ("main: stacks/\n", "", 0, "main", "there is no"),
    ("main: stacks/", "main: nosuch/", 4, "main", "git checkout HEAD -- stacks"),
    ("main: stacks/", "main: 3", 4, "main", "is 3: allowed is text"),
    ("main: stacks/", "main: plugins", 4, "main", "__main__.py"),
    ("stackConfigDir: stacks/\n", "", 0, "stackConfigDir", "allowed is stacks/"),
    ("stackConfigDir: stacks/", "stackConfigDir: nosuch", 5, "stackConfigDir", 'is "nosuch"'),
    ("stackConfigDir: stacks/", "stackConfigDir: [a]", 5, "stackConfigDir", "allowed is text"),
    (f"plugins:\n  {PROVIDERS}\n", "", 0, "plugins", "allowed is {providers: [{name: ems, path: plugins}]}"),
    (f"plugins:\n  {PROVIDERS}\n", "plugins: []\n", 6, "plugins", "is a list of 0"),
    (PROVIDERS, "providers:", 7, "plugins.providers", "is empty (null)"),
    (PROVIDERS, "providers: [a]", 7, "plugins.providers[0]", 'is "a": allowed is a mapping'),
    ("name: ems\n", "name: em\n", 7, "plugins.providers", "has no provider ems"),
    ("path: plugins", "path: plugin", 9, "plugins.providers[0].path", "git checkout HEAD -- plugins"),
    ("\n      path: plugins", "", 8, "plugins.providers[0].path", "is empty (null)"),
    ("path: plugins", "path: plugins\n      foo: 1", 10, "plugins.providers[0].foo", "allowed are name, path, version"),
    ("path: plugins", "path: plugins\n      version: abc", 10, "plugins.providers[0].version", "MAJOR.MINOR.PATCH"),
    ("config:\n", "config:\n  x:y:z: 3\n", 11, "config.x:y:z", "NAMESPACE:NAME"),
    ("config:\n", "config:\n  aws:n: 1e-3\n", 11, "config.aws:n", "quote it"),
    ("config:\n", "config:\n  aws:n: [.nan]\n", 11, "config.aws:n", "not finite"),
    ("config:\n", "config:\n  aws:n: {a: 1}\n", 11, "config.aws:n.a", "allowed are secret, value"),
    ("config:\n", "config:\n  aws:n: {default: a}\n", 11, "config.aws:n.default", "allowed is `value`"),
    ("config:\n", "backend:\nconfig:\n", 10, "backend", "allowed is {url: …}"),
    ("config:\n", "backend: x\nconfig:\n", 10, "backend", "allowed is a mapping"),
    ("config:\n", "options: {refresh: sometimes}\nconfig:\n", 10, "options.refresh", "allowed is always"),
    ("config:\n", "packages: 3\nconfig:\n", 10, "packages", "allowed is a mapping"),
    ("config:\n", "template: a\nconfig:\n", 10, "template", "allowed is a mapping"),
    ("config:\n", "license: 3\nconfig:\n", 10, "license", "is 3: allowed is text"),
]
GOOD = [
    ("runtime: python", "runtime: {name: python}"),
    ("main: stacks/", "main: stacks/__main__.py"),
    ("stackConfigDir: stacks/", "stackConfigDir: ./stacks"),
    ("path: plugins", "path: ./plugins/\n      version: 1.0.0"),
    ("config:\n", "config:\n  aws:region: us\n  aws:tags: [a, b]\n  aws:n: 3\n  aws:key: {value: a, secret: true}\n"),
    ("config:\n", "config:\n  n: {type: integer, default: 3}\n"),
    ("config:\n", "options: {refresh: always}\nfoo: 1\nconfig:\n"),
    ("name: lab\n", "name: a.B-9_\n"),
]


def changed(here: Lab, old: str, new: str) -> None:
    file = here.root / "Pulumi.yaml"
    text = file.read_text()
    assert text.count(old) == 1, old
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize("old, new, line, key, said", CHANGES)
def test_each_fault_is_told_with_its_line(here, old, new, line, key, said):
    changed(here, old, new)
    with pytest.raises(StackFileError) as caught:
        project.refuse(here.root)
    found = next(fault for fault in caught.value.faults if fault.key == key)
    assert (found.file, found.line) == (str(here.root / "Pulumi.yaml"), line) and said in found.problem


@pytest.mark.parametrize("old, new", GOOD)
def test_what_pulumi_takes_is_taken(here, old, new):
    changed(here, old, new)
    project.refuse(here.root)


def test_a_missing_plugin_hides_no_fault_of_the_file(here):
    changed(here, "runtime: python", "runtime: go")
    here.plugin().unlink()
    with pytest.raises(StackFileError) as caught:
        here.require()
    assert [fault.key for fault in caught.value.faults] == ["runtime", "plugins.providers[0].path"]


def test_all_faults_come_at_once_and_a_foreign_program_is_one(here):
    changed(here, "runtime: python", "runtime: go")
    changed(here, "path: plugins", "path: plugin")
    (here.stacks_dir / "__main__.py").write_text("print(1)\n")
    with pytest.raises(StackFileError) as caught:
        project.refuse(here.root)
    assert [fault.line for fault in caught.value.faults] == [3, 4, 9]
    assert "does not call `ems.engine.program`" in caught.value.faults[1].problem
