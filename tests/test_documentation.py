"""The manual is true: its pages are fresh, its links lead somewhere, what it shows exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.core import TyperGroup

import ems
from ems import clusters
from ems.base import plugins
from ems.stack import spec
from scripts.reference import FOLDER, PAGES, commands, exit_codes, json_shapes, render
from tests.documentation import ROOT, Page, calls, pages, slug_of

README = Page(ROOT / "README.md")
INDEX = Page(ROOT / "docs/README.md")
GENERAL = {"--help", "-h", "--debug"}
OF_THIS_REPOSITORY = re.compile(r"(ems|docs|tests|benchmarks|scripts|notebooks|requirements|\.github|\.ci)/[\w./-]*")
OF_A_SAMPLE = re.compile(r"(stacks|experiments|environments)/(?:Pulumi\.)?(digits|rnorm|svd)\b[\w./-]*")
AVOIDED = {
    r"(?<!there )\bis no (?!longer\b)\w+": "is not a …",
    r"\bcannot be had\b": "could not be obtained",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\blet(s|ting)? go\b": "release",
    r"\btruths\b": "booleans",
    r"\btells\b": "reports",
}

each_page = pytest.mark.parametrize("page", pages(), ids=str)


@pytest.mark.parametrize("name", PAGES)
def test_each_reference_page_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == render(name), "stale: run `make reference`"


def test_there_is_no_other_reference_page() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)


@each_page
def test_each_link_leads_somewhere(page: Page) -> None:
    for link in page.links():
        target, _, anchor = link.partition("#")
        if target.startswith("https://"):
            continue
        path = (page.path.parent / target).resolve() if target else page.path
        assert path.exists() and path.is_relative_to(ROOT), f"{page}: {link}"
        assert not anchor or anchor in Page(path).anchors(), f"{page}: {link} has no such heading"


@pytest.mark.parametrize(
    ("heading", "slug"),
    [("Passwords and TLS", "passwords-and-tls"), ("`ems up`, twice", "ems-up-twice"), ("[A](b.md) & c_d", "a--c_d")],
)
def test_headings_have_the_anchors_that_github_gives_them(heading: str, slug: str) -> None:
    assert slug_of(heading) == slug


@each_page
def test_each_shown_command_exists(page: Page) -> None:
    for words in calls(page, "ems"):
        problem = fault(words[1:])
        assert not problem, f"{page}: {' '.join(words)}: {problem}"


def fault(words: list[str]) -> str:
    """What is wrong with the words after `ems`: its command or an option does not exist."""
    command = commands.root()
    while isinstance(command, TyperGroup) and words and words[0] in command.commands:
        command = command.commands[words.pop(0)]
        if command.name == "pulumi":
            return ""
    if isinstance(command, TyperGroup) and words and re.match("[a-z]", words[0]):
        return f"there is no command {words[0]}"
    known = GENERAL.union(*(parameter.opts for parameter in command.params))
    return ", ".join(f"there is no option {word}" for word in words if word.startswith("-") and not known & {word})


def test_what_does_not_exist_is_found() -> None:
    assert fault(["up", "x", "--retry"]) == fault(["env", "lock"]) == fault(["pulumi", "up", "--yes"]) == ""
    assert fault(["run"]) == "there is no command run" and fault(["env", "make"]) == "there is no command make"
    assert fault(["up", "--again"]) == "there is no option --again"


@each_page
def test_each_shown_target_of_make_exists(page: Page) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in calls(page, "make"):
        assert targets.issuperset(word for word in words[1:2] if "=" not in word), f"{page}: {' '.join(words)}"


@each_page
def test_each_shown_path_exists(page: Page) -> None:
    for code in page.inline():
        shown = OF_THIS_REPOSITORY.fullmatch(code) or OF_A_SAMPLE.fullmatch(code)
        if shown and not re.search("NAME|STACK", code):
            assert (ROOT / code).exists(), f"{page}: {code}"


@each_page
def test_each_shown_function_of_ems_exists(page: Page) -> None:
    shown = set(re.findall(r"(?<![\w/.])ems\.(\w+)\(", page.text))
    assert shown <= set(ems.__all__), page


@each_page
def test_each_shown_stack_file_is_valid(page: Page) -> None:
    for block in page.blocks("yaml"):
        if block.startswith("config:"):
            ((key, value),) = yaml.safe_load(block)["config"].items()
            spec.parse(key.removeprefix("ems:"), value, clusters.settings())
        else:
            assert block.startswith("    "), f"{page}: neither a stack file nor a part of one:\n{block}"
            assert set(yaml.safe_load(block)) <= set(spec.ExperimentSpec.model_fields), f"{page}:\n{block}"


@each_page
@pytest.mark.parametrize("avoided", AVOIDED)
def test_no_page_has_words_that_are_avoided(page: Page, avoided: str) -> None:
    found = re.search(avoided, page.text, re.IGNORECASE)
    assert found is None, f"{page}: {found and found.group()!r}; better: {AVOIDED[avoided]}"


def test_the_readme_is_short() -> None:
    assert len(README.text.splitlines()) <= 150


@pytest.mark.parametrize("name", [name for name, _ in commands.walk(commands.root())])
def test_each_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"^\| `{name}\b[^|]*` \|[^|]+\| \[", README.text, re.MULTILINE)


def test_each_page_is_in_the_index() -> None:
    linked = {(INDEX.path.parent / link).resolve() for link in INDEX.links()}
    assert {page.path for page in pages() if page.path.is_relative_to(INDEX.path.parent)} - linked == {INDEX.path}


def test_each_place_and_each_database_has_a_page() -> None:
    for folder, package in (("places", "clusters"), ("databases", "databases")):
        index = Page(ROOT / "docs" / folder / "README.md")
        for name in plugins.names(package):
            assert f"{name}.md" in index.links(), f"{index} has no link to {name}.md"


def test_each_exit_code_has_a_meaning() -> None:
    assert set(exit_codes.errors()) | {0, 130, 141} == set(exit_codes.meanings())


def test_each_command_with_json_has_a_shape() -> None:
    shown = {name for shape in json_shapes.SHAPES for name in shape.commands}
    prints = [
        name for name, command in commands.walk(commands.root()) if any("--json" in p.opts for p in command.params)
    ]
    assert shown == set(prints) - {"ems results"}  # whose objects have the job's own columns


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == ems.__version__


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_the_files_of_github_are_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text())
