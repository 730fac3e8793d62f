"""What a run runs on: found out by its processes, kept in its row, and never a reason to fail."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ems.base.errors import DatabaseError, DatabaseUnavailable
from ems.base.version import __version__
from ems.databases import Database, Outcome, State, connect
from ems.node.agent import platform as agent_platform
from ems.node.agent.courier import Courier
from ems.node.agent.spools import Spools
from ems.node.driver import machine
from ems.node.driver import platform as driver_platform
from ems.node.driver.platform import Platforms
from ems.provenance import bundle
from ems.views.status import status_object
from tests.node.bench import Bench, bench
from tests.node.sweeping import CODE, Sweeping
from tests.processes import PATIENCE_S

__all__ = ["bench"]

OPENBLAS = sys.platform != "darwin"  # whose numpy may use Apple's library
QUICK = "print('done')"


def printed(code: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout


def platform_of(bench: Bench) -> dict[str, Any]:
    return dict(json.loads(bench.row().platform))


def assert_nobody_is_named(text: str) -> None:
    names = {socket.gethostname(), os.uname().nodename, getpass.getuser(), str(Path.home()), sys.prefix}
    for name in names | {name.partition(".")[0] for name in names}:
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text), name
    assert "/home" not in text and "/Users" not in text


# In a process


def test_a_process_knows_its_machine_and_names_nobody() -> None:
    text = printed("from ems.node.driver.platform import here; print(here())")
    found = json.loads(text)
    assert found["machine"]["cores"] == os.cpu_count() and found["machine"]["memory_gb"] > 0.1
    assert found["machine"]["architecture"] == os.uname().machine
    assert found["machine"]["flags"] == sorted(found["machine"]["flags"]) and found["machine"]["flags"]
    assert (found["system"]["name"], found["system"]["release"]) == (os.uname().sysname, os.uname().release)
    assert found["system"]["libc"] and found["system"]["distribution"]
    assert found["python"].endswith(f" {sys.version.split()[0]}")
    assert_nobody_is_named(text)


def test_numpy_is_not_loaded_to_ask_about_it() -> None:
    code = "import sys; from ems.node.driver.platform import here; print(here()); print('numpy' in sys.modules)"
    text, loaded = printed(code).splitlines()
    assert (json.loads(text)["blas"], loaded) == ([], "False")


def test_the_kernel_and_the_threads_of_numpys_blas_are_found_once_it_is_loaded() -> None:
    code = "from ems.node.driver.platform import here; here(); import numpy; print(here())"
    (blas,) = json.loads(printed(code, OPENBLAS_NUM_THREADS="1"))["blas"]
    if OPENBLAS:
        assert re.fullmatch(r"OpenBLAS \d+\.\d+\S*", blas["library"])
        assert re.fullmatch(r"\w+", blas["kernel"]) and blas["threads"] == 1
    (blas,) = json.loads(printed(code, OPENBLAS_CORETYPE="Nehalem", OPENBLAS_NUM_THREADS="2"))["blas"]
    if OPENBLAS and os.uname().machine == "x86_64":
        assert blas["kernel"] == "Nehalem"


X86 = "processor\t: 0\nmodel name\t: A CPU @ 2.90GHz\nflags\t\t: sse2 avx2\n\nprocessor\t: 1\nmodel name\t: B\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\nSerial\t: 123\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, ("A CPU @ 2.90GHz", ["avx2", "sse2"])),
        (ARM, ("implementer 0x41, part 0xd0c", ["asimd", "fp"])),
        ("processor : 0\ncpu : POWER9\n", ("POWER9", [])),
        ("", ("", [])),
    ],
)
def test_what_linux_says_of_processors(text: str, expected: tuple[str, list[str]]) -> None:
    assert machine.of_cpuinfo(text) == expected


def test_what_a_mac_says_of_its_processor() -> None:
    intel = "machdep.cpu.brand_string: Intel X\nmachdep.cpu.features: SSE2 FMA\nmachdep.cpu.leaf7_features: AVX2\n"
    assert machine.of_sysctl(f"{intel}hw.memsize: 8000000000\n") == ("Intel X", ["AVX2", "FMA", "SSE2"], 8 * 10**9)
    apple = "machdep.cpu.brand_string: Apple M1\nhw.optional.neon: 1\nhw.optional.arm.FEAT_BF16: 0\n"
    assert machine.of_sysctl(apple) == ("Apple M1", ["neon"], 0)


def test_the_name_of_a_distribution() -> None:
    assert machine.of_os_release('ID=x\nPRETTY_NAME="Some Linux 12"\n') == "Some Linux 12"
    assert machine.of_os_release("ID=x") == ""


def test_what_cannot_be_found_out_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken() -> None:
        raise OSError("no")

    monkeypatch.setattr(driver_platform, "blas", broken)
    driver_platform._here.cache_clear()
    assert driver_platform.here() == ""
    driver_platform._here.cache_clear()
    file = tmp_path / "platform.json"
    Platforms(file).meet("a", "")
    Platforms(tmp_path / "absent" / "platform.json").meet("a", "{}")
    assert not file.exists()


# Of a run


def platform(**changes: object) -> str:
    own = {"machine": machine.machine(), "system": machine.system(), "python": "CPython 3.11.7", "blas": []}
    return json.dumps({**own, **changes})


def test_workers_that_are_alike_are_one_entry_and_others_say_what_differs(tmp_path: Path) -> None:
    platforms = Platforms(tmp_path / "platform.json")
    blas = [{"library": "OpenBLAS 0.3.30", "kernel": "Haswell", "threads": 1}]
    platforms.meet("a", platform())
    for worker in ("a", "b", "c", "b"):
        platforms.meet(worker, platform(blas=blas))
    elsewhere = {**machine.machine(), "cpu": "Another"}
    platforms.meet("d", platform(blas=blas, machine=elsewhere))
    found = json.loads(agent_platform.of_run(tmp_path, "c0ffee"))
    assert (found["ems"], found["commit"]) == (__version__, "c0ffee")
    assert (found["python"], found["blas"]) == ("CPython 3.11.7", blas)
    assert found["workers"] == [{"count": 3}, {"count": 1, "machine": elsewhere}]
    agent_platform.forget(tmp_path)
    before = json.loads(agent_platform.of_run(tmp_path, "c0ffee"))
    assert (before["python"], before["blas"], before["workers"]) == ("", [], [])
    assert before["machine"] == machine.machine()


def test_a_command_runs_in_an_environment_whose_python_and_blas_are_found(bench: Bench) -> None:
    run_dir = bench.new(QUICK, ems=bundle._node_code())
    assert bench.run(run_dir).state is State.SUCCEEDED
    found = platform_of(bench)
    assert found["python"].endswith(f" {sys.version.split()[0]}") and found["workers"] == []
    assert [blas["threads"] for blas in found["blas"]] == [1] or not OPENBLAS
    assert_nobody_is_named(bench.row().platform)
    assert status_object(bench.row())["platform"] == found


def test_what_cannot_be_found_out_of_an_environment_fails_no_run(bench: Bench) -> None:
    broken = io.BytesIO()
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("ems/__init__.py", "raise RuntimeError('broken')")
    run_dir = bench.new(QUICK, ems=broken.getvalue())
    assert bench.run(run_dir).state is State.SUCCEEDED
    assert (platform_of(bench)["python"], platform_of(bench)["ems"]) == ("", __version__)


def probed(folder: Path, script: str) -> agent_platform.Probe:
    if script:
        (folder / "bin").mkdir()
        (folder / "bin/python").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "bin/python").chmod(0o755)
    return agent_platform.Probe(folder, folder / "ems.zip", dict(os.environ), folder)


@pytest.mark.parametrize("script", ["", "exit 1", "exec sleep 60", "nonsense"])
def test_an_environment_without_a_python_that_answers_is_not_waited_for(tmp_path: Path, script: str) -> None:
    began = time.monotonic()
    probe = probed(tmp_path, script)
    probe.end(0.2)
    assert time.monotonic() - began < 10
    assert json.loads(agent_platform.of_run(tmp_path, "c0ffee"))["python"] == ""


def test_a_sweeps_workers_say_on_what_they_run(bench: Bench) -> None:
    sweep = Sweeping(bench, workers=2, code=f"import numpy\n{CODE}")
    assert sweep.run()[0] is State.SUCCEEDED
    found = platform_of(bench)
    (group,) = found["workers"]
    assert group in ({"count": 1}, {"count": 2})
    assert found["python"].endswith(f" {sys.version.split()[0]}")
    assert [blas["threads"] for blas in found["blas"]] == [1] or not OPENBLAS
    assert_nobody_is_named(bench.row().platform)


def test_a_library_that_cannot_be_loaded_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "scipy").mkdir()
    (tmp_path / "scipy/__init__.py").write_text("raise RuntimeError('damaged')")
    file = tmp_path / "platform.json"
    code = f"import sys; sys.path.insert(0, sys.argv[1]); {agent_platform.BOOT.partition('; ')[2].partition('; ')[2]}"
    subprocess.run([sys.executable, "-c", code, tmp_path, file], check=True, timeout=PATIENCE_S)
    (group,) = json.loads(file.read_text())
    assert (group["count"], len(group["blas"])) == (0, 1) or not OPENBLAS


# The courier


def carried(bench: Bench, tmp_path: Path, platform: Callable[[], str], connected: Callable[[], Database]) -> State:
    bench.register()
    claim = bench.database.claim("e1", agent="a", lease_s=60)
    assert claim
    courier = Courier(connected, claim, Spools(tmp_path, 1, [], continues=False), 60, 0.05)
    courier.platform = platform
    courier.start()
    time.sleep(0.2)
    courier.finish(Outcome(State.SUCCEEDED, 1, 0))
    courier.join(PATIENCE_S)
    assert courier.released
    return bench.row().state


def test_a_gatherer_that_fails_does_not_fail_the_run(bench: Bench, tmp_path: Path) -> None:
    def broken() -> str:
        raise RuntimeError("no")

    assert carried(bench, tmp_path, broken, lambda: connect(bench.url, bench.root)) is State.SUCCEEDED
    assert (bench.row().platform, status_object(bench.row())["platform"]) == ("", "not recorded")


@pytest.mark.parametrize("error", [DatabaseError, DatabaseUnavailable])
def test_a_platform_that_is_not_taken_at_first_is_offered_again_only_where_that_helps(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    with closing(connect(bench.url, bench.root)) as database:
        describe, calls = database.describe, []

        def failing(claim: Any, text: str) -> None:
            calls.append(text)
            if len(calls) == 1:
                raise error("no")
            describe(claim, text)

        monkeypatch.setattr(database, "describe", failing)
        assert carried(bench, tmp_path, lambda: "{}", lambda: database) is State.SUCCEEDED
    assert (len(calls), bench.row().platform) == ((1, "") if error is DatabaseError else (2, "{}"))
