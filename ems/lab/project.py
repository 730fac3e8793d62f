"""`Pulumi.yaml` of a lab: all that Pulumi, its language host or EMS would refuse in it, with file and line.

What passes here does not fail in Pulumi's words, after a lock and a stack were made. `tests/end_to_end/test_project.py`
compares it with the engine itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ems.base.errors import Fault, StackFileError
from ems.base.messages import nearest, show
from ems.stack import yamlfile
from ems.stack.keys import dotted, placed, setting_faults

TEXTS = ("description", "author", "license", "website", "main", "stackConfigDir")
MAPPINGS = ("backend", "options", "template")
SETTING_KEYS = ("value", "secret", "description", "type", "items", "default")
OF_OWN_SETTINGS = ("type", "items", "default")  # which no other namespace may declare
PROGRAM = re.compile(r"\bems\.(engine\.)?program\b")
SHIM = "pulumi-resource-ems"
ENTRY = "{name: ems, path: plugins}"


def refuse(root: Path) -> None:
    """StackFileError with all faults of the `Pulumi.yaml` in `root`, which `ems.lab.read` has read before."""
    file = root / "Pulumi.yaml"
    content, located = yamlfile.read(file)
    if isinstance(content, dict) and (found := list(_faults(root, content))):
        raise StackFileError(placed(found, file, {dotted(at): line for at, line in located.items()}))


def _faults(root: Path, project: Mapping[str, Any]) -> Iterator[Fault]:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", str(project.get("name"))):
        allowed = "up to 100 letters, digits, `-`, `_`, `.`, without accents"
        yield Fault("name", f"is {show(project.get('name'))}: allowed are {allowed}")
    yield from _type_faults(project)
    yield from _runtime_faults(project.get("runtime"))
    yield from _program_faults(root, project.get("main"))
    yield from _folder_faults(root, project.get("stackConfigDir"))
    yield from _plugin_faults(root, project.get("plugins"))
    config = project.get("config")
    for key, value in config.items() if isinstance(config, dict) else ():
        for fault in (*setting_faults(key, value), *_setting_faults(str(project.get("name")), key, value)):
            yield Fault(f"config.{fault.key}", fault.problem)


def _type_faults(project: Mapping[str, Any]) -> Iterator[Fault]:
    for key in (*TEXTS, *MAPPINGS):
        value, kind = project.get(key), dict if key in MAPPINGS else str
        if value is not None and not isinstance(value, kind):
            yield Fault(key, f"is {show(value)}: allowed is {'text' if kind is str else 'a mapping'}")
    if "backend" in project and project["backend"] is None:
        yield Fault("backend", "is empty (null): allowed is {url: …}; without the key, the state is kept in .ems/state")
    if not isinstance(project.get("packages", {}), dict):
        yield Fault("packages", f"is {show(project['packages'])}: allowed is a mapping")
    options = project.get("options")
    if isinstance(options, dict) and options.get("refresh", "always") != "always":
        yield Fault("options.refresh", f"is {show(options['refresh'])}: allowed is always")


def _runtime_faults(runtime: object) -> Iterator[Fault]:
    name = runtime.get("name") if isinstance(runtime, dict) else runtime
    if name != "python":
        yield Fault("runtime", f"is {show(runtime)}: allowed is python, which the program of EMS is written in")
    elif isinstance(runtime, dict) and runtime.get("options"):
        problem = "is given: allowed is none, for the program runs with the Python that runs `ems`; leave it out"
        yield Fault("runtime.options", problem)


def _program_faults(root: Path, main: object) -> Iterator[Fault]:
    if main is not None and not isinstance(main, str):
        return
    place = root / (main or ".")
    program = place if place.is_file() else place / "__main__.py"
    if not program.is_file():
        yield Fault("main", f"is {show(main)}, but there is no {program}: allowed is stacks/; {_put_back('stacks')}")
    elif not PROGRAM.search(program.read_text(encoding="utf-8", errors="replace")):
        problem = f"is {show(main)}, but {program} does not call `ems.engine.program`: allowed is stacks/"
        yield Fault("main", f"{problem}; {_put_back('stacks/__main__.py')}")


def _put_back(path: str) -> str:
    return f"`git checkout HEAD -- {path}` puts back what was committed"


def _folder_faults(root: Path, folder: object) -> Iterator[Fault]:
    if folder is not None and not isinstance(folder, str):
        return
    # Pulumi takes an absolute one for a relative one.
    if folder is None or folder.startswith("/") or (root / folder).resolve() != (root / "stacks").resolve():
        yield Fault("stackConfigDir", f"is {show(folder)}: allowed is stacks/, where EMS reads the stack files")


def _plugin_faults(root: Path, plugins: object) -> Iterator[Fault]:
    if not isinstance(plugins, dict) or not isinstance(plugins.get("providers"), list):
        given = plugins.get("providers") if isinstance(plugins, dict) else plugins
        key = "plugins.providers" if isinstance(plugins, dict) else "plugins"
        yield Fault(key, f"is {show(given)}: allowed is {{providers: [{ENTRY}]}}")
        return
    providers = plugins["providers"]
    for place, provider in enumerate(providers):
        yield from _provider_faults(root, f"plugins.providers[{place}]", provider)
    if not any(isinstance(provider, dict) and provider.get("name") == "ems" for provider in providers):
        yield Fault("plugins.providers", f"has no provider ems: add {ENTRY}, by which Pulumi finds EMS")


def _provider_faults(root: Path, key: str, provider: object) -> Iterator[Fault]:
    if not isinstance(provider, dict):
        yield Fault(key, f"is {show(provider)}: allowed is a mapping, as {ENTRY}")
        return
    known = ("name", "path", "version")
    for name in provider:
        if name not in known:
            yield Fault(f"{key}.{name}", f"is not a key here: {nearest(name, known)}")
    for name in ("name", "path"):
        if not isinstance(provider.get(name), str) or not provider[name]:
            yield Fault(f"{key}.{name}", f"is {show(provider.get(name))}: allowed is text, as {ENTRY}")
            return
    version = provider.get("version")
    if version is not None and not re.fullmatch(r"\d+\.\d+\.\d+[\w.+-]*", str(version)):
        yield Fault(f"{key}.version", f"is {show(version)}: allowed is MAJOR.MINOR.PATCH, as 1.0.0, or none")
    folder = root / provider["path"]
    if provider["name"] == "ems" and not os.access(folder / SHIM, os.X_OK):
        problem = f"is {show(provider['path'])}, but {folder / SHIM} is not a program: allowed is plugins"
        yield Fault(f"{key}.path", f"{problem}; {_put_back('plugins')}")


def _setting_faults(project: str, key: str, value: object) -> Iterator[Fault]:
    name = dotted((key,))
    if isinstance(value, dict):
        is_own = ":" not in key or key.startswith(f"{project}:")
        for inner in value:
            if inner not in SETTING_KEYS:
                yield Fault(f"{name}.{inner}", f"is not a key here: {nearest(inner, SETTING_KEYS[:2])}")
            elif inner in OF_OWN_SETTINGS and not is_own:
                yield Fault(f"{name}.{inner}", "is only for settings of the project itself: allowed is `value`")
    elif value is None or isinstance(value, float):
        yield Fault(name, f"is {show(value)}, which Pulumi does not take here: quote it")
