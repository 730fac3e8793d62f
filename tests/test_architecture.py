"""Where modules live and what they may import: arrows run down only, plug-ins register by their folder's name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems.base import plugins

ROOT = Path(__file__).parents[1]
FLOORS = (  # from the ground up; a room imports only what lies below it
    "ems.base",
    "ems.sweep",
    "ems.spool",
    "ems.stack",
    "ems.databases",
    "ems.databases.PLUGIN",
    "ems.stores",
    "ems.stores.PLUGIN",
    "ems.node.environments",
    "ems.node.job",
    "ems.node.driver",
    "ems.node.programs",
    "ems.node.mailbox",
    "ems.node.agent",
    "ems.node",
    "ems.node.aws",
    "ems.lab",
    "ems.provenance",
    "ems.importing",
    "ems.clusters",
    "ems.clusters.PLUGIN",
    "ems.engine.provider",
    "ems.engine",
    "ems.views",
    "ems.cli",
    "ems.notebook",
    "ems",
)
PLUGGED = ("ems.databases", "ems.stores", "ems.clusters")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "ems").rglob("*.py"))
    if "templates" not in path.parts
}
DRIVER_NEEDS = frozenset(
    {"dask", "distributed", "psutil", "numpy", "pandas"}
)  # psutil comes with distributed; the last
# two only where the job uses them


def room(module: str) -> str:
    """The folder of a module; of those at the top, the module itself."""
    folder = ".".join(FILES[module].parent.relative_to(ROOT).parts)
    return module if folder == "ems" else folder


def floor(room: str) -> int:
    above, _, name = room.rpartition(".")
    return FLOORS.index(f"{above}.PLUGIN" if above in PLUGGED and name else room)


def nodes(module: str) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8")))


def named(module: str) -> Iterator[str]:
    """What a module imports, at any depth: in functions, for types alone, or by its name as text."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: relative imports hide where they lead"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            yield from by_text(node.func, node.args[0])


def by_text(called: ast.Attribute, first: ast.expr) -> Iterator[str]:
    """`import_module("ems.x.y")`, also as an f-string, and `plugins.load("x", …)`."""
    start = first.values[0] if isinstance(first, ast.JoinedStr) else first
    text = start.value if isinstance(start, ast.Constant) and isinstance(start.value, str) else ""
    if called.attr == "import_module" and text.rstrip(".") not in {"", "ems"}:
        yield text.rstrip(".")
    if called.attr == "load" and isinstance(called.value, ast.Name) and called.value.id == "plugins" and text:
        yield f"ems.{text}"


def own(name: str) -> str | None:
    """The module of EMS that an imported name is, or is in."""
    while name.partition(".")[0] == "ems":
        if name in FILES:
            return name
        name = name.rpartition(".")[0]
    return None


def arrows(module: str) -> set[str]:
    return {found for name in named(module) if (found := own(name))}


@pytest.mark.parametrize("module", FILES)
def test_arrows_run_down_only(module):
    for target in arrows(module):
        here, there = room(module), room(target)
        assert here == there or floor(there) < floor(here), f"{module} → {target}"


def test_each_room_has_its_floor():
    assert all(floor(room(module)) >= 0 for module in FILES)
    used = {room(module) for module in FILES}
    assert set(FLOORS) - used <= {"ems.databases.PLUGIN", "ems.stores.PLUGIN", "ems.clusters.PLUGIN"}


def plugin(module: str) -> tuple[str, ...]:
    """The plug-in that a module belongs to: ("databases", "sqlite"); () for others."""
    return tuple(room(module).split(".")[1:]) if room(module).rpartition(".")[0] in PLUGGED else ()


def test_a_plugin_never_imports_another_one():
    for module in FILES:
        for target in arrows(module):
            if plugin(module)[:1] == plugin(target)[:1]:
                assert plugin(module) == plugin(target), f"{module} → {target}"


def test_a_folder_is_a_plugin():
    assert {"sqlite", "postgresql", "bigquery", "dynamodb"} <= set(plugins.names("databases"))
    assert "laptop" in plugins.names("clusters")
    for package, door in (("databases", "database"), ("stores", "store"), ("clusters", "place")):
        for name in plugins.names(package):
            assert f"ems.{package}.{name}.{door}" in FILES


def test_only_the_engine_and_places_with_resources_of_pulumis_own_import_pulumi():
    for module in FILES:
        if any(name.partition(".")[0].startswith("pulumi") for name in named(module)):
            assert room(module).startswith(("ems.engine", "ems.clusters.")), module


def test_only_the_console_makes_consoles_and_texts_of_rich():
    """Its own show control characters and take no value for markup."""
    for module in set(FILES) - {"ems.base.console"}:
        assert not {"rich.text.Text", "rich.print", "rich.markup"} & set(named(module)), module
        called = {
            node.func.id for node in nodes(module) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert "Console" not in called, module


def loaded(code: str) -> set[str]:
    printed = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return {name.partition(".")[0] for name in printed.stdout.split()} | set(printed.stdout.split())


@pytest.mark.parametrize("code", ["import ems; ems.results", "import ems.node.agent.agent", "import ems.cli.app"])
def test_neither_pulumi_nor_git_nor_a_rendering_library_is_loaded_where_it_is_not_needed(code):
    assert not loaded(code) & {"pulumi", "git", "grpc", "matplotlib", "IPython"}


def test_importing_ems_is_light():
    assert not loaded("import ems") & {"pandas", "sqlalchemy", "pydantic", "yaml", "rich", "pyarrow"}


def test_a_command_that_asks_no_database_loads_none():
    assert not loaded("import ems.cli.app") & {"pandas", "sqlalchemy", "pyarrow", "ems.clusters.pull"}


def test_a_command_that_reads_no_stack_file_loads_no_schema_of_them():
    assert "ems.stack.models" not in loaded("import ems.cli.app")


@pytest.mark.parametrize("start", ["ems.node.driver.driver", "ems.sweep", "ems.spool.folder"])
def test_what_is_imported_in_a_jobs_environment_is_python_3_9_with_the_standard_library_and_dask(start):
    for module in reached(start):
        ast.parse(FILES[module].read_text(encoding="utf-8"), feature_version=(3, 9))
        tops = {name.partition(".")[0] for name in named(module)}
        foreign = tops - {"ems", *sys.stdlib_module_names}
        assert foreign <= DRIVER_NEEDS, f"{module}: {foreign}"


def reached(start: str) -> set[str]:
    """All of EMS that `start` imports, directly or not; `ems` itself imports its views only when they are asked for."""
    found, waiting = set(), [start]
    while waiting:
        module = waiting.pop()
        if module in found or module == "ems.notebook":
            continue
        found.add(module)
        waiting += arrows(module)
    return found


@pytest.mark.parametrize("module", ["ems.node.host", "ems.node.aws.boot", "ems.clusters.slurm.answers"])
def test_what_is_asked_by_ssh_needs_the_standard_library_alone(module):
    code = f"import sys; sys.path.insert(0, '.'); import {module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=ROOT)
