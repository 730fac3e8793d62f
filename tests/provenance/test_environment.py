"""Locks, their faults, and environments that uv really builds."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from ems.base import seal
from ems.base.errors import ProvenanceError, UserError
from ems.lab.repository import work_tree
from ems.provenance import building, environment, pins
from ems.provenance import code as provenance
from ems.provenance.environment import Environment
from ems.stack.models import CodeSpec

SHA = "0" * 64
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
TABULATE = """\
tabulate==0.9.0 \\
    --hash=sha256:0095b12bf5966de529c0feb1fa08671671b3368eec77d7ef7ab114be2c068b3c \\
    --hash=sha256:024ca478df22e9340661486f85298cff5f6dcdba14f3813e8830015b9ed1948f
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))


def make(lock="", python=HERE, name="small"):
    return Environment(name, python, lock)


def folder(tmp_path, **files):
    made = tmp_path / "environments" / "small"
    made.mkdir(parents=True)
    for name, content in files.items():
        (made / {"wishes": "requirements.in", "lock": "requirements.txt", "python": "python-version"}[name]).write_text(
            content
        )
    return made


def test_the_digest_counts_what_is_pinned_and_nothing_else():
    plain = make(f"a==1 --hash=sha256:{SHA}\nb==2 --hash=sha256:{SHA}\n")
    dressed = make(
        f"# made by hand\n--index-url x\n\na==1   \\\n    --hash=sha256:{SHA}\n\r\nb==2 --hash=sha256:{SHA} # why"
    )
    turned = make(f"b==2 --hash=sha256:{SHA}\na==1 --hash=sha256:{SHA}\n", name="other")
    assert plain.digest == dressed.digest == turned.digest
    assert len(plain.digest) == 64
    others = [make(plain.lock.replace("a==1", "a==1.0")), make(plain.lock, python="3.12.1"), make("")]
    assert len({plain.digest, *(other.digest for other in others)}) == 4


def test_a_full_lock_has_no_fault_and_neither_has_an_empty_one():
    lock = f"""\
# comment
numpy==2.1.0 ; python_version >= '3.11' and sys_platform == 'linux' \\
    --hash=sha256:{SHA} \\
    --hash=sha512:{"0" * 128}
    # via scipy
dask[array, distributed]==2025.1.0 --hash=sha256:{SHA}
torch==2.5.1+cpu --hash=sha256:{SHA}
"""
    assert pins.check(make(lock)) == ((), ())
    assert pins.check(make("")) == ((), ())


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("numpy", "'numpy' is not pinned"),
        (f"numpy>=1.2 --hash=sha256:{SHA}", "is not pinned"),
        (f"numpy==1.* --hash=sha256:{SHA}", "is not pinned"),
        (f"numpy==1,<2 --hash=sha256:{SHA}", "is not pinned"),
        ("numpy==1.2", "has no --hash"),
        (f"numpy==1.2 --hash=md5:{'0' * 32}", "--hash=md5"),
        ("numpy==1.2 --hash=sha256:12", "--hash=sha256:12"),
        (f"numpy @ https://example.org/numpy.whl --hash=sha256:{SHA}", "address or a folder"),
        ("git+https://example.org/x.git@1234", "address or a folder"),
        (f"./wheels/x-1.0-py3-none-any.whl --hash=sha256:{SHA}", "address or a folder"),
        ("-e .", "'-e' is not allowed"),
        ("-r other.txt", "'-r' is not allowed"),
        ("--index-url=https://example.org", "'--index-url' is not allowed"),
        ("--extra-index-url https://example.org", "'--extra-index-url' is not allowed"),
    ],
)
def test_each_unpinned_line_is_refused_with_its_number(line, part):
    found = pins.check(make(f"# one\nsix==1.16.0 \\\n  --hash=sha256:{SHA}\n\n{line}\n"))
    assert len(found.errors) == 1
    assert found.errors[0].startswith("environments/small/requirements.txt:5: ")
    assert part in found.errors[0]


@pytest.mark.parametrize("python", ["3", "3.11.1.2", ">=3.11", "python3.11", "3.11\n3.12", ""])
def test_a_python_version_is_two_or_three_numbers(python):
    found = pins.check(make(python=python))
    assert repr(python) in found.errors[0] and "MAJOR.MINOR[.PATCH]" in found.errors[0]
    with pytest.raises(ProvenanceError, match="python-version"):
        building.build(make(python=python))


def test_rendering_libraries_are_named_and_calculating_ones_are_not():
    names = ["matplotlib", "jupyterlab-server", "PyQt5", "ipython", "numpy", "matplotlib-inline", "dask"]
    found = pins.check(make("".join(f"{name}==1 --hash=sha256:{SHA}\n" for name in names)))
    assert found.errors == ()
    assert [warning.split()[1] for warning in found.warnings] == ["matplotlib", "jupyterlab-server", "pyqt5", "ipython"]


def test_reading_a_folder_and_a_commit_gives_the_same(tmp_path):
    made = folder(tmp_path, lock=TABULATE, python=f"{HERE}\n")
    stack_file = tmp_path / "stacks" / "Pulumi.fit.yaml"
    stack_file.parent.mkdir()
    stack_file.write_text("config: {}\n")
    author = ("-c", "user.name=researcher", "-c", "user.email=researcher@example.org")
    for words in (("init", "-q"), ("add", "environments", "stacks"), (*author, "commit", "-q", "-m", "First")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    tree = work_tree(tmp_path)
    code = provenance.resolve(
        tree,
        CodeSpec(paths=["environments"]),
        environment=["environments/small"],
        stack_file=stack_file,
        remote_needed=False,
    )
    committed = environment.from_folder(made)
    (made / "requirements.txt").write_text("")
    assert environment.of(tree, code, "small") == committed == make(TABULATE)
    with pytest.raises(ProvenanceError, match=r"no python-version and no requirements\.txt in commit"):
        environment.of(tree, code, "large")


def test_what_a_folder_lacks_is_named(tmp_path):
    made = folder(tmp_path, lock="")
    with pytest.raises(ProvenanceError, match=r"no python-version in .*small"):
        environment.from_folder(made)
    with pytest.raises(ProvenanceError, match=r"requirements\.in is missing"):
        building.lock(made)
    assert environment.folder(tmp_path, "small") == made
    with pytest.raises(UserError, match="allowed are small"):
        environment.folder(tmp_path, "large")


def test_lock_pins_with_hashes_keeps_pins_and_upgrades_on_demand(tmp_path):
    made = folder(tmp_path, wishes="tabulate\n", python=f"{HERE}\n", lock=TABULATE.replace("0.9.0", "0.8.10"))
    building.lock(made)
    kept = (made / "requirements.txt").read_text()
    assert "tabulate==0.8.10" in kept
    building.lock(made, upgrade=True)
    upgraded = environment.from_folder(made)
    assert "tabulate==0.8.10" not in upgraded.lock
    assert pins.check(upgraded) == ((), ())
    assert sorted(file.name for file in made.iterdir()) == ["python-version", "requirements.in", "requirements.txt"]


def test_a_lock_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    made = folder(tmp_path, wishes="-e .\n", python=f"{HERE}\n", lock="")
    (made / "pyproject.toml").write_text("[project]\nname = 'here'\nversion = '1'\n")
    with pytest.raises(ProvenanceError, match="'-e' is not allowed"):
        building.lock(made)
    (made / "requirements.in").write_text("tabulate\n")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "empty"))
    with pytest.raises(ProvenanceError, match="cannot be locked") as caught:
        building.lock(made)
    assert "network" in caught.value.hint
    assert (made / "requirements.txt").read_text() == ""


def outside_python(built, *words):
    """What the built interpreter prints, in a folder that has nothing to import."""
    return subprocess.run(
        [built / "bin/python", *words], cwd=built, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_a_build_has_the_packages_and_its_scripts_work_after_the_rename():
    said = []
    built = building.build(make(TABULATE), said.append)
    assert (
        outside_python(built, "-c", "import tabulate, sys; print(tabulate.__version__, sys.prefix)") == f"0.9.0 {built}"
    )
    script = subprocess.run([built / "bin/tabulate"], input="1 2\n", capture_output=True, text=True, check=True)
    assert script.stdout.splitlines()[1] == "1  2"
    assert said[0] == f"environment small: Python {HERE}"
    assert "environment small: 1 package" in said
    again = []
    assert building.build(make(f"# the same\n{TABULATE}"), again.append) == built
    assert again == []


def test_an_environment_sees_nothing_of_its_builders():
    built = building.build(make())
    assert outside_python(built, "-c", "import importlib.util as u; print(u.find_spec('git'), u.find_spec('ems'))") == (
        "None None"
    )


def test_a_rendering_library_that_is_built_is_named_with_its_size(monkeypatch):
    monkeypatch.setattr(pins, "RENDERING", pins.re.compile("tabulate"))
    assert "MB" not in pins.check(make(TABULATE)).warnings[0]
    building.build(make(TABULATE))
    assert "tabulate (0." in pins.check(make(TABULATE)).warnings[0]


@pytest.mark.parametrize("name", ["jupyter-core", "Jupyter.Core", "jupyter__core"])
def test_names_are_compared_as_package_indexes_do(name):
    assert "jupyter-core renders data" in pins.check(make(f"{name}==5.0 --hash=sha256:{SHA}\n")).warnings[0]


def test_a_wrong_hash_is_never_installed():
    wrong = make(f"tabulate==0.9.0 --hash=sha256:{SHA}\n")
    with pytest.raises(ProvenanceError, match="cannot be installed") as caught:
        building.build(wrong)
    assert SHA in str(caught.value) and "not the one that was pinned" in caught.value.hint
    assert not environment.is_built(wrong)


def test_a_python_that_does_not_exist_is_named():
    with pytest.raises(ProvenanceError, match=r"Python 3\.99 of environment 'small' could not be obtained") as caught:
        building.build(make(python="3.99"))
    assert "uv python install 3.99" in caught.value.hint


def test_an_unpinned_lock_is_not_built():
    with pytest.raises(ProvenanceError, match=r"requirements\.txt:1: 'six' is not pinned"):
        building.build(make("six\n"))


def test_a_half_built_environment_is_never_used_and_cleared_away():
    wanted = make()
    final = environment.built_folder(wanted)
    for remains in (final, final.with_name(f"{final.name}.dead.part")):
        (remains / "bin").mkdir(parents=True)
        (remains / "bin" / "python").symlink_to(sys.executable)
    assert not environment.is_built(wanted)
    assert building.build(wanted) == final
    assert outside_python(final, "-c", "import sys; print(sys.prefix)") == str(final)
    assert not list(final.parent.glob("*.part"))


def test_an_environment_whose_interpreter_went_away_is_built_again():
    built = building.build(make())
    python = environment.python_path(built)
    python.unlink()
    python.symlink_to("/nowhere/python")
    assert building.build(make()) == built
    assert outside_python(built, "-c", "print(1)") == "1"


def _build(lock, python):
    said = []
    return building.build(Environment("small", python, lock), said.append), said


def test_two_builds_at_once_give_one_environment():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(_build, [(TABULATE, HERE)] * 2, chunksize=1)
    assert results[0][0] == results[1][0]
    assert sum("environment small: 1 package" in said for _, said in results) == 1
    assert outside_python(results[0][0], "-c", "import tabulate; print(tabulate.__version__)") == "0.9.0"


def test_a_build_that_is_killed_leaves_nothing_that_is_used(tmp_path):
    """Killed while it says that it installs: the folder is there, the marker is not."""
    program = (
        "import sys, time\nfrom ems.provenance import building, environment\n"
        f"wanted = environment.Environment('small', {HERE!r}, {TABULATE!r})\n"
        "def say(step):\n    print(step, flush=True)\n    time.sleep('1 package' in step and 600)\n"
        "building.build(wanted, say)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert any("1 package" in line for line in process.stdout)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    wanted = make(TABULATE)
    assert list(environment.built_folder(wanted).parent.glob("*.part"))
    assert not environment.is_built(wanted)
    began = time.monotonic()
    built = building.build(wanted)
    assert time.monotonic() - began < 300  # the lock of the dead does not hold
    assert outside_python(built, "-c", "import tabulate; print(tabulate.__version__)") == "0.9.0"
    assert not list(built.parent.glob("*.part"))


def site_packages(built):
    (site,) = built.glob("lib/python*/site-packages")
    return site


def patched(built):
    file = site_packages(built) / "tabulate/__init__.py"
    file.chmod(0o644)
    file.write_text("__version__ = 'mine'")


def added(built):
    site_packages(built).chmod(0o755)
    (site_packages(built) / "sitecustomize.py").write_text("")


def half_removed(built):
    for path in (site_packages(built), site_packages(built) / "tabulate"):
        path.chmod(0o755)
    (site_packages(built) / "tabulate/__init__.py").unlink()


def unlisted(built):
    built.chmod(0o755)
    (built / seal.LISTING).unlink()


def redirected(built):
    built.joinpath("bin").chmod(0o755)
    built.joinpath("bin/python").unlink()
    built.joinpath("bin/python").symlink_to(sys.executable)


@pytest.mark.parametrize(
    "spoil, named", [(patched, "__init__"), (added, "sitecustomize"), (half_removed, "__init__"), (redirected, "bin/")]
)
def test_an_environment_that_a_job_changed_is_built_anew_and_told(spoil, named):
    """Whoever uses an environment gets what its lock says, whatever the last job did to it."""
    built = building.build(make(TABULATE))
    spoil(built)
    assert not environment.is_intact(built)
    said = []
    assert building.build(make(TABULATE), said.append) == built
    assert any("was changed since it was built" in line and named in line for line in said)
    assert outside_python(built, "-c", "import tabulate; print(tabulate.__version__)") == "0.9.0"
    assert not (site_packages(built) / "sitecustomize.py").exists() and environment.is_intact(built)
    assert [path.name for path in built.parent.iterdir() if path.is_dir()] == [built.name]


def test_one_that_an_older_ems_built_is_built_anew():
    built = building.build(make(TABULATE))
    unlisted(built)
    said = []
    building.build(make(TABULATE), said.append)
    assert "environment small: 1 package" in said and environment.is_intact(built)


def test_a_built_tree_is_read_only_and_use_does_not_change_it():
    built = building.build(make(TABULATE))
    modes = [path.stat().st_mode & 0o222 for path in (built, *built.rglob("*")) if not path.is_symlink()]
    assert len(modes) > 20 and not any(modes)
    outside_python(built, "-O", "-c", "import tabulate")  # as root, writes bytecode of its own
    subprocess.run([built / "bin/tabulate"], input="1 2\n", capture_output=True, text=True, check=True)
    assert environment.is_intact(built)


def test_what_is_built_shares_no_file_with_the_cache_of_the_installer():
    built = building.build(make(TABULATE))
    assert all(path.stat().st_nlink == 1 for path in built.rglob("*") if path.is_file() and not path.is_symlink())
