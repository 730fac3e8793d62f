"""Locks that a repository has anyway, read at a commit: what they pin, for which Python, with which own packages."""

import json
import os
import subprocess
import sys

import pytest

from ems.base.errors import ProvenanceError
from ems.base.process import uv
from ems.lab.repository import work_tree
from ems.node.agent import packages as laid_out
from ems.provenance import code as provenance
from ems.provenance import environment, locks, packages, pins, pylock
from ems.stack.models import CodeSpec, LockSpec
from tests.provenance.labs import commit, git, write

SHA = "0" * 64
PYPROJECT = """\
[project]
name = "phase"
version = "0.3"
requires-python = ">=3.11"
dependencies = ["libb"]
[project.scripts]
phase-run = "phase.main:main"
[project.entry-points."phase.plugins"]
one = "phase.main:main"
[dependency-groups]
simulation = ["libc"]
dev = ["libd"]
[project.optional-dependencies]
plot = ["libe"]
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
"""


def registry(name: str, *sub: str) -> str:
    dependencies = "".join(f'    {{ name = "{each}" }},\n' for each in sub)
    return f"""
[[package]]
name = "{name}"
version = "1.0"
source = {{ registry = "https://index.example/simple" }}
dependencies = [
{dependencies}]
wheels = [
    {{ url = "https://index.example/{name}-1.0-py3-none-any.whl", hash = "sha256:{SHA}" }},
]
"""


LOCK = f"""\
version = 1
requires-python = ">=3.11"
{"".join(map(registry, ["libb", "libc", "libd", "libe"]))}
[[package]]
name = "phase"
version = "0.3"
source = {{ editable = "." }}
dependencies = [
    {{ name = "libb" }},
]

[package.optional-dependencies]
plot = [
    {{ name = "libe" }},
]

[package.dev-dependencies]
dev = [
    {{ name = "libd" }},
]
simulation = [
    {{ name = "libc" }},
]

[package.metadata]
requires-dist = [
    {{ name = "libb" }},
    {{ name = "libe", marker = "extra == 'plot'" }},
]
provides-extras = ["plot"]

[package.metadata.requires-dev]
dev = [{{ name = "libd" }}]
simulation = [{{ name = "libc" }}]
"""
FILES = {"pyproject.toml": PYPROJECT, "uv.lock": LOCK, "src/phase/__init__.py": "", "src/phase/main.py": "x = 1\n"}


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "--quiet")
    return root


def read(lab, files=None, **spec):
    """The environment that the lab in that folder has at a commit with these files, which lie at the top."""
    top = lab if (lab / ".git").exists() else lab.parent
    write(top, FILES if files is None else files)
    lab.mkdir(exist_ok=True)
    write(lab, {"readme": "A lab.\n"})
    commit(top)
    tree = work_tree(lab)
    code = provenance.at_commit(tree, CodeSpec())
    return environment.of(tree, code, LockSpec(**({"lock": "uv.lock"} | spec)))


def names(found):
    return sorted(pins.pinned(found.lock))


def refusal(*arguments, **spec):
    with pytest.raises(ProvenanceError) as caught:
        read(*arguments, **spec)
    return str(caught.value)


def test_a_lock_of_uv_gives_pins_with_hashes_for_the_groups_and_extras_that_are_named(repository):
    plain = read(repository)
    assert names(plain) == ["libb"] and pins.check(plain).errors == ()
    assert plain.name == "uv.lock" and plain.python == "3.11" and f"--hash=sha256:{SHA}" in plain.lock
    more = read(repository, groups=["simulation"], extras=["plot"])
    assert names(more) == ["libb", "libc", "libe"] and more.name == "uv.lock (simulation, extra plot)"
    assert len({plain.digest, more.digest, read(repository, python="3.12").digest}) == 3
    assert read(repository).digest == plain.digest


def test_the_repositorys_own_package_counts_for_identity_and_not_for_what_is_built(repository):
    before = read(repository)
    (package,) = before.packages
    assert (package.name, package.version, package.roots) == ("phase", "0.3", ("src",))
    assert ("console_scripts", "phase-run", "phase.main:main") in package.entry_points
    after = read(repository, {"pyproject.toml": PYPROJECT.replace("0.3", "0.4")})
    assert after.digest != before.digest and after.built == before.built
    assert environment.built_folder(after) == environment.built_folder(before)


def test_the_python_is_the_one_that_is_written_else_that_beside_the_lock_else_the_oldest_that_is_allowed(repository):
    assert read(repository, python="3.12.1").python == "3.12.1"
    assert read(repository).python == "3.11"
    assert read(repository, {".python-version": "# mine\ncpython-3.13\n"}).python == "3.13"
    assert read(repository, python="3.12").python == "3.12"
    assert "allowed is MAJOR.MINOR" in refusal(repository, {".python-version": "system\n"})


@pytest.mark.parametrize(
    ("requires", "python"),
    [(">=3.10", "3.10"), (">=3.11.4,<4", "3.11"), ("~=3.12", "3.12"), ("", ""), ("nonsense", ""), ("<3", "")],
)
def test_the_oldest_python_that_is_allowed(requires, python):
    assert locks.oldest(requires) == python


def test_an_unknown_group_is_refused_with_what_uv_says(repository):
    said = refusal(repository, groups=["nosuch"])
    assert "uv.lock in commit" in said and "nosuch" in said and "uv lock" in said


def test_a_lock_that_the_commit_lacks_is_refused(repository):
    assert "sub/uv.lock is not in commit" in refusal(repository, lock="sub/uv.lock")
    assert "../uv.lock is not in commit" in refusal(repository, lock="../uv.lock")


def test_a_lab_below_the_top_takes_its_own_member_of_the_workspace_from_the_lock_above(repository):
    member = PYPROJECT.replace('name = "phase"', 'name = "lab"').replace('"libb"', '"libc"')
    entry = LOCK[LOCK.index('[[package]]\nname = "phase"') :]
    entry = entry.replace('"phase"', '"lab"').replace('editable = "."', 'editable = "lab"').replace("libb", "libc")
    files = {
        "pyproject.toml": PYPROJECT + '[tool.uv.workspace]\nmembers = ["lab"]\n',
        "uv.lock": LOCK.replace("version = 1\n", 'version = 1\n[manifest]\nmembers = ["phase", "lab"]\n', 1).replace(
            'version = 1\n[manifest]\nmembers = ["phase", "lab"]\nrequires-python = ">=3.11"\n',
            'version = 1\nrequires-python = ">=3.11"\n\n[manifest]\nmembers = ["lab", "phase"]\n',
        )
        + "\n"
        + entry,
        "lab/pyproject.toml": member,
        "lab/phase/__init__.py": "",
    }
    found = read(repository / "lab", files, lock="../uv.lock")
    assert names(found) == ["libc"]
    assert [(package.name, package.roots) for package in found.packages] == [("lab", (".",))]


def test_a_package_outside_the_labs_folder_is_refused(repository):
    assert "outside the lab's folder" in refusal(repository / "lab", lock="../uv.lock")


@pytest.mark.parametrize(
    ("said", "roots"),
    [
        ("", ("src",)),
        ('[tool.setuptools.packages.find]\nwhere = ["lib"]\n', ("lib",)),
        ('[tool.setuptools.package-dir]\n"" = "python"\n', ("python",)),
        ('[tool.hatch.build.targets.wheel]\npackages = ["code/phase", "code/other"]\n', ("code",)),
        ('[tool.hatch.build.targets.wheel]\npackages = ["phase"]\n', (".",)),
        ('[tool.uv.build-backend]\nmodule-root = ""\n', (".",)),
        ('[tool.poetry]\npackages = [{include = "phase", from = "lib"}]\n', ("lib",)),
        ('[tool.pdm.build]\npackage-dir = "lib"\n', ("lib",)),
    ],
)
def test_modules_are_found_where_the_build_backend_finds_them(said, roots):
    assert packages.read(".", (PYPROJECT + said).encode(), None, ["src/phase/__init__.py"]).roots == roots


def test_without_src_modules_lie_beside_pyproject_toml():
    assert packages.read(".", PYPROJECT.encode(), None, ["phase/__init__.py"]).roots == (".",)
    assert packages.read("libs/a", PYPROJECT.encode(), None, ["libs/a/phase.py"]).roots == ("libs/a",)


@pytest.mark.parametrize(
    ("pyproject", "setup"),
    [
        (PYPROJECT.replace("hatchling.build", "maturin"), None),
        (PYPROJECT.replace("hatchling.build", "scikit_build_core.build"), None),
        (PYPROJECT + "[tool.setuptools]\next-modules = []\n", None),
        (PYPROJECT, b"setup(ext_modules=cythonize(['a.pyx']))"),
    ],
)
def test_compiled_modules_are_refused_with_a_way_out(pyproject, setup):
    with pytest.raises(ProvenanceError, match=r"compiled modules.*\n.*wheel"):
        packages.read(".", pyproject.encode(), setup, ["src/phase/__init__.py"])


def test_requirements_with_hashes_are_taken_as_they_are(repository):
    text = f"libb==1.0 --hash=sha256:{SHA}\n"
    found = read(repository, {"requirements.txt": text, ".python-version": "3.12\n"}, lock="requirements.txt")
    assert found.lock == text and found.python == "3.12" and pins.check(found).errors == ()
    assert "has neither groups" in refusal(repository, {}, lock="requirements.txt", groups=["a"])


def test_of_requirements_nothing_says_the_python_but_the_stack_file(repository):
    files = {"requirements.txt": f"libb==1.0 --hash=sha256:{SHA}\n"}
    assert 'python: "3.11"' in refusal(repository, files, lock="requirements.txt")
    assert read(repository, lock="requirements.txt", python="3.12").python == "3.12"


def test_unpinned_requirements_are_refused_with_their_line_and_the_way_to_lock_them(repository):
    found = read(repository, {"requirements.txt": "libb\n"}, lock="requirements.txt", python="3.11")
    with pytest.raises(ProvenanceError) as caught:
        pins.refuse(found)
    assert "requirements.txt:1: 'libb' is not pinned" in str(caught.value)
    assert "ems env lock NAME --from requirements.txt" in str(caught.value)


def test_a_lock_by_uv_with_what_no_index_has_is_refused_by_its_name(repository):
    lock = LOCK.replace(
        'name = "libb"\nversion = "1.0"\nsource = { registry = "https://index.example/simple" }',
        'name = "libb"\nversion = "1.0"\nsource = { git = "https://example.org/libb.git?rev=1#' + "a" * 40 + '" }',
    )
    lock = lock.replace(
        'wheels = [\n    { url = "https://index.example/libb-1.0-py3-none-any.whl", hash = "sha256:'
        + SHA
        + '" },\n]\n',
        "",
    )
    with pytest.raises(ProvenanceError, match=r"uv\.lock: 'libb @ git.*address or a folder(.|\n)*uv lock"):
        pins.refuse(read(repository, {**FILES, "uv.lock": lock}))


PYLOCK = f"""\
lock-version = "1.0"
requires-python = ">=3.12"
extras = ["plot"]
dependency-groups = ["simulation"]
default-groups = []
created-by = "hand"
[[packages]]
name = "libb"
version = "1.0"
marker = "sys_platform == 'linux'"
wheels = [{{ url = "https://index.example/b.whl", hashes = {{ sha256 = "{SHA}", md5 = "1" }} }}]
[[packages]]
name = "libc"
version = "2.0"
marker = "'simulation' in dependency_groups and python_version > '3.0'"
sdist = {{ url = "https://index.example/c.tar.gz", hashes = {{ sha256 = "{SHA}" }} }}
[[packages]]
name = "libe"
version = "3.0"
marker = "'plot' in extras or 'nosuch' in extras"
wheels = [{{ url = "https://index.example/e.whl", hashes = {{ sha512 = "{SHA * 2}" }} }}]
"""


def holding(found):
    return sorted(
        name for name in pins.pinned(found.lock) if f"{name}==" in found.lock and not is_off(found.lock, name)
    )


def is_off(text, name):
    from packaging.requirements import Requirement

    (line,) = (line for line in text.splitlines() if line.startswith(f"{name}=="))
    marker = Requirement(line.partition(" --hash=")[0]).marker
    return bool(marker) and not marker.evaluate({"python_version": "3.12", "sys_platform": "linux"})


def test_a_pylock_gives_pins_with_hashes_for_the_groups_and_extras_that_are_named(repository):
    plain = read(repository, {"pylock.toml": PYLOCK}, lock="pylock.toml")
    assert plain.python == "3.12" and pins.check(plain).errors == () and holding(plain) == ["libb"]
    more = read(repository, {}, lock="pylock.toml", groups=["simulation"], extras=["plot"])
    assert holding(more) == ["libb", "libc", "libe"] and pins.check(more).errors == ()
    assert "md5" not in more.lock and more.digest != plain.digest


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("[[packages]]", "[[packages"), "is not TOML"),
        (('lock-version = "1.0"', 'lock-version = "2.0"'), "lock-version '2.0'"),
        ((f', hashes = {{ sha512 = "{SHA * 2}" }}', ""), "'libe' without a hash"),
        (('version = "2.0"', 'vcs = { type = "git" }'), "'libc' from a vcs"),
        (('version = "2.0"', ""), "'libc' without a version"),
    ],
)
def test_what_a_pylock_says_that_cannot_be_installed_the_same_again_is_refused(change, part):
    with pytest.raises(ProvenanceError, match=part):
        pylock.read("pylock.toml", PYLOCK.replace(*change), (), ())


def test_unknown_groups_and_extras_of_a_pylock_are_refused_with_those_that_there_are():
    with pytest.raises(ProvenanceError, match=r"'a' among its dependency-groups: allowed are simulation\n.*'b'"):
        pylock.read("pylock.toml", PYLOCK, ["a"], ["b"])


def test_a_pylock_that_uv_wrote_pins_what_uv_lock_pins(repository):
    write(repository, FILES)
    uv("export", "--quiet", "--frozen", "--offline", "--format", "pylock.toml", "--no-default-groups",
       "--no-emit-project", "-o", "pylock.toml", cwd=repository)  # fmt: skip
    found = read(repository, {}, lock="pylock.toml")
    assert found.built == read(repository).built


def test_own_packages_are_laid_out_as_if_they_were_installed(tmp_path):
    unpacked = tmp_path / "an odd 'folder'"
    write(unpacked / "code", {"src/phase/__init__.py": "", "src/phase/main.py": MAIN})
    package = packages.read(".", PYPROJECT.encode(), None, ["src/phase/__init__.py"])
    write(unpacked, {laid_out.PACKAGES: json.dumps([package.as_json()])})
    built = tmp_path / "built"
    (built / "bin").mkdir(parents=True)
    (built / "bin/python").symlink_to(sys.executable)
    variables = laid_out.added({"PATH": "/usr/bin:/bin", "PYTHONPATH": "/own"}, unpacked, built)
    done = subprocess.run(["phase-run", "a b"], env=variables, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("phase-run ['a b'] 0.3 ['one']\n", "", 3)
    assert variables["PYTHONPATH"].split(os.pathsep)[0] == "/own"


MAIN = """
import sys
from importlib.metadata import entry_points, version
def main():
    print(sys.argv[0], sys.argv[1:], version("phase"), [each.name for each in entry_points(group="phase.plugins")])
    return 3
"""


def test_without_own_packages_nothing_is_added(tmp_path):
    assert laid_out.added({"PATH": "/bin"}, tmp_path, tmp_path) == {"PATH": "/bin"}
    assert list(tmp_path.iterdir()) == []
