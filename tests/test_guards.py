"""Rules that no other test would miss: plug-ins are tested, imports stay where they belong."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from ems.base import plugins
from ems.cli import app as cli
from ems.provenance import environment, pins

ROOT = Path(__file__).parents[1]


def commands(group=None, name="ems") -> Iterator[tuple[str, object]]:
    for word, command in (group or typer.main.get_command(cli.app)).commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_each_command_has_help(name, command):
    assert command.help, name


def test_each_database_has_its_contract_test():
    for name in plugins.names("databases"):
        assert "(DatabaseContract):" in (ROOT / f"tests/databases/test_{name}.py").read_text()


def test_each_store_has_its_contract_test():
    for name in plugins.names("stores"):
        assert "(StoreContract):" in (ROOT / f"tests/stores/test_{name}.py").read_text()


def test_each_place_has_its_contract_test():
    for name in plugins.names("clusters"):
        text = (ROOT / f"tests/clusters/test_{name}.py").read_text()
        assert "PlaceContract" in text and re.search(r"^class Test\w+\(", text, re.MULTILINE)


def test_files_hold_one_idea():
    for path in (path for folder in ("ems", "tests") for path in (ROOT / folder).rglob("*.py")):
        assert len(path.read_text().splitlines()) <= 400, path


def test_no_function_is_long():
    for path in (ROOT / "ems").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 40, f"{path}: {node.name}"


def test_this_repository_is_a_lab_like_those_that_init_makes():
    template = ROOT / "ems/cli/templates/lab"
    assert (template / "stacks/__main__.py").read_text() == (ROOT / "stacks/__main__.py").read_text()
    plugin = "plugins/pulumi-resource-ems"
    assert (template / plugin).read_text().replace("$$", "$") == (ROOT / plugin).read_text()
    assert os.access(ROOT / plugin, os.X_OK)
    ours, theirs = ((folder / "Pulumi.yaml").read_text() for folder in (ROOT, template))
    for line in ("main: stacks/", "stackConfigDir: stacks/", "      path: plugins", "runtime: python"):
        assert line in ours.splitlines() and line in theirs.splitlines()


def tracked() -> Iterator[tuple[str, str]]:
    """Name and text of each file that git would commit."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file() and (ROOT / name).suffix not in {".png", ".parquet"}:
            yield name, (ROOT / name).read_text(encoding="utf-8")


def test_no_file_names_an_index_or_a_folder_of_one_machine():
    hosts = re.compile(r"\bpypi\.(org|python)|pythonhosted|npmjs\.|proxy\.golang|artifactory", re.I)
    folders = re.compile(rf"{re.escape(str(ROOT))}|(?<![\w.~}}])/(root|work)/\w")
    for name, text in tracked():
        if name == "tests/test_guards.py":
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            assert not hosts.search(line) and not folders.search(line), f"{name}:{number}: {line[:200]}"


@pytest.mark.parametrize("file", sorted(path.name for path in (ROOT / "requirements").glob("*.txt")))
def test_each_requirement_is_pinned_with_hashes(file):
    found = pins.check(environment.Environment(file, "3.11", (ROOT / "requirements" / file).read_text()))
    assert found.errors == ()


def test_each_sample_environment_can_be_built_again():
    for folder in (ROOT / "environments").iterdir():
        assert pins.check(environment.from_folder(folder)).errors == ()


def test_each_command_has_its_own_words():
    helps = [command.help for _, command in commands()]
    assert len(set(helps)) == len(helps) >= 15


FIXED = {  # what plain English says otherwise
    r"(?<![Tt]here )\b(is|are|was) no (?!longer|such|more|agent|table|remote|lab\b|stack|option|command|fault)[a-z]": (
        "is not a"
    ),
    r"\b(cannot|could not) be had\b": "could not be obtained",
    r"\b[Mm]end(s|ed|ing)?\b": "fix",
    r"\b[Ll]et(s|ting)? go\b": "release",
    r"\btruths\b": "booleans",
}


def test_messages_and_docstrings_are_plain_english():
    for path in (ROOT / "ems").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for pattern, better in FIXED.items():
                    found = re.search(pattern, node.value)
                    assert not found, f"{path}:{node.lineno}: {found[0]!r}: say {better!r}"


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and syntax tree of each module of EMS whose public names promise docstrings."""
    for path in sorted((ROOT / "ems").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if "templates" not in parts:
            yield ".".join(parts).removesuffix(".__init__"), ast.parse(path.read_text())


def is_promised(name: str, owner: type) -> bool:
    """Whether a base class says what this method of `owner` does: one of EMS by a docstring, a library's elsewhere."""
    bases = [base for base in owner.__mro__[1:-1] if name in vars(base)]
    return any(base.__module__.split(".")[0] != "ems" or vars(base)[name].__doc__ for base in bases)


def undocumented(where: str, body: list[ast.stmt], holder: object) -> Iterator[str]:
    """Public functions, classes and methods in the `body` of a module or class, but for nested ones."""
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
        spared = marks & {"overload", "setter"} or (isinstance(holder, type) and is_promised(node.name, holder))
        if not ast.get_docstring(node) and not spared:
            yield f"{where}.{node.name}, line {node.lineno}"
        if isinstance(node, ast.ClassDef):
            yield from undocumented(f"{where}.{node.name}", node.body, getattr(holder, node.name))


def test_each_public_name_has_a_docstring():
    found = [line for name, tree in modules() for line in undocumented(name, tree.body, importlib.import_module(name))]
    assert not found, "\n".join(found)


def test_the_makefile_names_files_that_exist():
    printed = subprocess.run(
        ["make", "-n", "test", "check", "drill"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    named = set(re.findall(r"(?:tests|benchmarks|scripts)/[\w/]+\.py", printed.stdout))
    assert len(named) > 2 and all((ROOT / name).is_file() for name in named), sorted(named)
