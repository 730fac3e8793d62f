"""Which engine is taken, without a network and without building one: the programs are small scripts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ems.base.errors import EngineError
from ems.engine import build, doctor, manners
from ems.engine import install as engine


@pytest.fixture(autouse=True)
def nothing_installed(tmp_path, monkeypatch):
    """A machine with a shell, an empty cache and no engine."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for tool in ("sh", "env", "echo"):
        (bare / tool).symlink_to(f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}")
    monkeypatch.setenv("PATH", str(bare))
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))
    for name in list(os.environ):
        if name.startswith("PULUMI_"):
            monkeypatch.delenv(name)


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def an_engine(folder: Path, version: str = f"v{engine.VERSION}", without: str = "") -> Path:
    for name in engine.PROGRAMS:
        if name != without:
            program(folder / name, f"echo {version}")
    return folder


def on_path(monkeypatch, folder: Path) -> None:
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "pulumi" / engine.VERSION / "bin"


def test_there_is_none():
    assert engine.find() is None


@pytest.mark.parametrize("version", ["v3.200.0", "3.274.1", "v3.300.1-alpha.1"])
def test_one_on_path_is_taken(version, tmp_path, monkeypatch):
    folder = an_engine(tmp_path / "mine", version)
    on_path(monkeypatch, folder)
    assert engine.find() == engine.ensure() == folder
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("version", ["v3.199.9", "v4.0.0", "v2.99.0", "rubbish", "", "v3.200.0; exit 1"])
def test_one_of_a_wrong_version_is_passed_over_for_the_cached_one(version, tmp_path, monkeypatch):
    on_path(monkeypatch, an_engine(tmp_path / "mine", version))
    assert engine.find() is None
    assert engine.find() is None
    an_engine(cached(tmp_path))
    assert engine.find() == cached(tmp_path)


@pytest.mark.parametrize("missing", engine.PROGRAMS[1:])
def test_one_without_its_language_host_is_passed_over(missing, tmp_path, monkeypatch):
    on_path(monkeypatch, an_engine(tmp_path / "mine", without=missing))
    assert engine.find() is None
    program(tmp_path / "elsewhere" / missing, "echo here")
    on_path(monkeypatch, tmp_path / "elsewhere")
    assert engine.find() == tmp_path / "mine"


def test_one_that_cannot_run_is_passed_over(tmp_path):
    an_engine(cached(tmp_path))
    (cached(tmp_path) / "pulumi").write_text("#!/no/such/interpreter\n")
    assert engine.find() is None
    (cached(tmp_path) / "pulumi").write_bytes(b"\x7fELF for another machine")
    assert engine.find() is None


def test_one_that_does_not_run_is_no_missing_one(tmp_path, monkeypatch):
    """As with too little memory: another engine, fetched or built, would not run either."""
    an_engine(cached(tmp_path))
    program(cached(tmp_path) / "pulumi", "echo 'fatal error: failed to reserve page summary memory' >&2; exit 2")
    for ask in (engine.find, engine.ensure):
        with pytest.raises(EngineError) as caught:
            ask()
        assert "does not run" in caught.value.message and "page summary memory" in caught.value.message
        assert "ulimit -v" in caught.value.hint and "missing" not in caught.value.message
    on_path(monkeypatch, an_engine(tmp_path / "mine"))
    assert engine.find() == tmp_path / "mine"


def test_without_network_and_go_the_error_names_what_failed_and_the_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "true")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    steps: list[str] = []
    with pytest.raises(EngineError) as caught:
        engine.ensure(steps.append)
    assert "could not be built: " in caught.value.message
    assert "PATH" in caught.value.hint and "Go module proxy" in caught.value.hint
    assert steps == ["Fetching a Go toolchain"]
    assert engine.find() is None
    assert [path.name for path in (tmp_path / "cache/pulumi").iterdir()] == [f"{engine.VERSION}.lock"]


@pytest.mark.parametrize("version, remark", [("v3.200.0", ""), ("v3.274.1", ""), ("v3.274.2", "This one is newer")])
def test_the_doctor_names_the_tested_range_to_whom_it_concerns(version, remark, tmp_path, monkeypatch):
    on_path(monkeypatch, an_engine(tmp_path / "mine", version))
    (found,) = [finding for finding in doctor.examine() if finding.name == "pulumi"]
    assert found.ok and found.detail == f"{version[1:]} (tested: 3.200.0 to 3.274.1) in {tmp_path / 'mine'}"
    assert (remark in found.remedy and "3.200.0 to 3.274.1" in found.remedy) if remark else found.remedy == ""


def test_the_doctor_tells_of_one_on_path_that_is_not_used(tmp_path, monkeypatch):
    an_engine(cached(tmp_path))
    on_path(monkeypatch, an_engine(tmp_path / "mine", "v3.150.0"))
    (found,) = [finding for finding in doctor.examine() if finding.name == "pulumi"]
    assert found.ok and str(tmp_path / "mine/pulumi") in found.remedy and "3.200.0 to 3.274.1" in found.remedy


@pytest.mark.parametrize(
    "said, enough", [("go1.19.8", False), ("go1.21.0", True), ("go1.27.3", True), ("devel", False)]
)
def test_an_old_go_is_not_used(said, enough, tmp_path, monkeypatch):
    assert not build._go_is_new_enough()
    program(tmp_path / "go/go", f"echo {said}")
    on_path(monkeypatch, tmp_path / "go")
    assert build._go_is_new_enough() is enough


@pytest.fixture
def root(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/Pulumi.yaml").write_text("name: lab\nruntime: python\ndescription: |\n  no backend: here\n")
    return tmp_path / "lab"


def test_a_pulumi_process_gets_path_backend_and_passphrase(root, tmp_path):
    env = engine.environment(tmp_path / "engine", root)
    first, second, *rest = env["PATH"].split(os.pathsep)
    assert (first, second) == (str(Path(sys.executable).parent), str(tmp_path / "engine"))
    assert rest == [os.environ["PATH"]]
    assert env["PULUMI_BACKEND_URL"] == f"file://{root}/.ems/state" and (root / ".ems/state").is_dir()
    assert env["PULUMI_CONFIG_PASSPHRASE"] == "" and env["PULUMI_SKIP_UPDATE_CHECK"] == "true"


@pytest.mark.parametrize("name", ["a b", "a%20b", "a#b", "a?b", "a\nb", "研究"])
def test_any_folder_is_a_backend(name, tmp_path):
    root = tmp_path / name
    root.mkdir()
    (root / "Pulumi.yaml").write_text("name: lab\nruntime: python\n")
    url = engine.environment(tmp_path, root)["PULUMI_BACKEND_URL"]
    assert url.isprintable() and not set("?# ") & set(url)
    assert manners.backend_folder(url, root) == root / ".ems/state/.pulumi"


def test_what_the_user_has_set_stays(root, tmp_path, monkeypatch):
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://bucket")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE_FILE", "/secret")
    monkeypatch.setenv("PULUMI_SKIP_UPDATE_CHECK", "false")
    env = engine.environment(tmp_path, root)
    assert env["PULUMI_BACKEND_URL"] == "s3://bucket" and env["PULUMI_SKIP_UPDATE_CHECK"] == "false"
    assert "PULUMI_CONFIG_PASSPHRASE" not in env
    assert not (root / ".ems").exists()


def test_a_backend_in_the_labs_project_file_is_respected(root, tmp_path):
    with (root / "Pulumi.yaml").open("a") as file:
        file.write("backend:\n  url: gs://bucket\n")
    assert "PULUMI_BACKEND_URL" not in engine.environment(tmp_path, root)
    assert not (root / ".ems").exists()
