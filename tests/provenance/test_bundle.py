"""Bundles: the same bytes everywhere, of the commit alone; and their unpacking."""

import hashlib
import os
import stat
import subprocess
import sys
from zipfile import ZipFile, ZipInfo

import pytest

from ems.base.errors import ProvenanceError
from ems.lab.repository import work_tree
from ems.node.agent.unpack import unpack
from ems.provenance import bundle
from ems.provenance import code as provenance
from ems.provenance.environment import Environment
from ems.stack.models import CodeSpec

SMALL = Environment("small", "3.11", "# none\n")
SPEC = '{"title":"größer"}'
FILES = {
    "experiments/fit.py": b"print(1)\r\n",
    "experiments/data.bin": bytes(range(256)) * 50,
    "experiments/empty": b"",
    "experiments/größe 日本.txt": b"x",
    "stacks/Pulumi.fit.yaml": b"config: {}\n",
    "environments/small/requirements.txt": b"",
}


def git(folder, *words):
    identity = ("-c", "user.name=researcher", "-c", "user.email=researcher@example.org")
    done = subprocess.run(["git", *identity, *map(str, words)], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def lab(tmp_path):
    folder = tmp_path / "lab"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "experiments/run.sh").write_text("#!/bin/sh\necho ran\n")
    (folder / "experiments/run.sh").chmod(0o755)
    (folder / "experiments/link").symlink_to("run.sh")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "First")
    return folder


def resolve(lab):
    return provenance.resolve(
        work_tree(lab),
        CodeSpec(paths=["experiments"]),
        environment=["environments/small"],
        stack_file=lab / "stacks/Pulumi.fit.yaml",
        remote_needed=False,
    )


@pytest.fixture
def made(lab, tmp_path):
    return bundle.make(tmp_path / "bundles", resolve(lab), SMALL, SPEC)


def unpacked(made, target):
    unpack(made.path, target)
    return target


def test_a_bundle_holds_the_declared_files_and_what_the_run_needs(made, tmp_path):
    assert made.path == tmp_path / "bundles" / f"{made.sha256}.zip"
    assert hashlib.sha256(made.path.read_bytes()).hexdigest() == made.sha256
    assert sorted(file.name for file in made.path.parent.iterdir()) == [".lock", made.path.name]
    target = unpacked(made, tmp_path / "run" / "bundle")
    files = {file.relative_to(target).as_posix() for file in target.rglob("*") if not file.is_dir()}
    expected = {f"code/{name}" for name in FILES if name.startswith("experiments/")}
    expected |= {"code/experiments/run.sh", "code/experiments/link", "spec.json", "shipped.json", "ems.zip"}
    assert files == expected | {"environment/requirements.txt", "environment/python-version"}
    assert all((target / "code" / name).read_bytes() == FILES[name] for name in FILES if name.startswith("experiments"))
    assert (target / "spec.json").read_text(encoding="utf-8") == SPEC
    assert (target / "environment/requirements.txt").read_text() == SMALL.lock
    assert (target / "environment/python-version").read_text() == "3.11\n"


def test_modes_and_links_are_kept_whatever_the_umask(made, tmp_path):
    before = os.umask(0o077)
    try:
        target = unpacked(made, tmp_path / "out")
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((target / "code/experiments" / name).stat().st_mode) for name in ("run.sh", "fit.py")}
    assert modes == {"run.sh": 0o755, "fit.py": 0o644}
    assert (target / "code/experiments/link").readlink().as_posix() == "run.sh"
    assert subprocess.run([target / "code/experiments/link"], capture_output=True, check=True).stdout == b"ran\n"


def test_the_same_commit_gives_the_same_bytes_in_another_clone_under_another_umask(lab, made, tmp_path):
    git(tmp_path, "clone", "--quiet", "-c", "core.autocrlf=true", lab, "another clone")
    before = os.umask(0o027)
    try:
        other = bundle.make(tmp_path / "elsewhere", resolve(tmp_path / "another clone"), SMALL, SPEC)
    finally:
        os.umask(before)
    assert other.sha256 == made.sha256
    assert other.path.read_bytes() == made.path.read_bytes()


def test_making_it_again_gives_one_file_and_another_spec_another(lab, made, tmp_path):
    assert bundle.make(tmp_path / "bundles", resolve(lab), SMALL, SPEC) == made
    assert bundle.make(tmp_path / "bundles", resolve(lab), SMALL, "{}").sha256 != made.sha256
    assert bundle.make(tmp_path / "bundles", resolve(lab), Environment("a", "3.12", ""), SPEC).sha256 != made.sha256
    assert len(list((tmp_path / "bundles").glob("*.zip"))) == 3


def test_what_happens_in_the_working_tree_after_resolve_changes_nothing(lab, made, tmp_path):
    code = resolve(lab)
    (lab / "experiments/fit.py").write_text("print('edited')\n")
    (lab / "experiments/empty").unlink()
    git(lab, "add", "--all")
    git(lab, "commit", "--quiet", "--message", "Second")
    (lab / "experiments/fit.py").write_text("print('edited again')\n")
    assert bundle.make(tmp_path / "bundles", code, SMALL, SPEC) == made


def test_an_interrupted_make_leaves_no_bundle_and_does_not_disturb_the_next(lab, made, tmp_path):
    code = resolve(lab)
    absent = provenance.CommittedFile("experiments/absent", "100644", "1" * 40)
    broken = provenance.Code(code.repository, code.commit, code.tree, code.paths, code.git_dir, (*code.files, absent))
    with pytest.raises(ProvenanceError, match="1" * 40):
        bundle.make(tmp_path / "new", broken, SMALL, SPEC)
    assert not list((tmp_path / "new").glob("*.zip"))
    assert bundle.make(tmp_path / "new", code, SMALL, SPEC).sha256 == made.sha256
    assert not list((tmp_path / "new").glob("*.tmp"))


def test_a_large_file_is_streamed(lab, tmp_path):
    with (lab / "experiments/large.bin").open("wb") as file:
        for number in range(96):
            file.write(os.urandom(1 << 10) * 1024 if number % 2 else bytes(1 << 20))
    git(lab, "add", ".")
    git(lab, "commit", "--quiet", "--message", "Large")
    program = f"""
import resource
from pathlib import Path
from ems.provenance import bundle, environment, code as provenance
from ems.lab.repository import work_tree
from ems.stack.models import CodeSpec
from ems.node.agent.unpack import unpack
lab = Path({str(lab)!r})
code = provenance.at_commit(work_tree(lab), CodeSpec(paths=["experiments"]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = bundle.make(Path({str(tmp_path / "b")!r}), code, environment.Environment("small", "3.11", ""), "{{}}")
unpack(made.path, Path({str(tmp_path / "u")!r}))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / (1024 if {sys.platform == "linux"} else 1024**2))
"""
    grown_mb = float(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    assert grown_mb < 48
    copied = (tmp_path / "u/code/experiments/large.bin").read_bytes()
    assert copied == (lab / "experiments/large.bin").read_bytes()


def test_every_module_of_the_node_code_can_be_imported_from_its_zip(made, tmp_path):
    target = unpacked(made, tmp_path / "out")
    program = """
import importlib, sys, zipfile
sys.path.insert(0, sys.argv[1])
files = zipfile.ZipFile(sys.argv[1]).namelist()
names = [file.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for file in files]
for name in names:
    if name.startswith(("ems.node", "ems.databases")) and not name.endswith("__main__"):
        importlib.import_module(name)
from_zip = {n: m.__file__ for n, m in sys.modules.items() if n.split(".")[0] == "ems"}
assert len(from_zip) >= 6 and all(file.startswith(sys.argv[1]) for file in from_zip.values()), from_zip
assert not {"pulumi", "matplotlib", "git"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, target / "ems.zip"], cwd=target, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_unpacking_replaces_what_was_there_and_needs_no_leftovers(made, tmp_path):
    target = tmp_path / "run"
    for remains in ("run", "run.tmp", "run.old"):
        (tmp_path / remains / "code").mkdir(parents=True)
        (tmp_path / remains / "code" / "written by an earlier attempt").touch()
    unpack(made.path, target)
    assert not (target / "code" / "written by an earlier attempt").exists()
    assert (target / "code/experiments/fit.py").read_bytes() == FILES["experiments/fit.py"]
    assert sorted(path.name for path in tmp_path.glob("run*")) == ["run"]


def test_a_damaged_bundle_is_refused_and_the_old_folder_stays(made, tmp_path):
    target = unpacked(made, tmp_path / "run")
    content = bytearray(made.path.read_bytes())
    content[len(content) // 2] ^= 1
    made.path.write_bytes(content)
    with pytest.raises(ProvenanceError, match="damaged") as caught:
        unpack(made.path, target)
    assert made.sha256 in str(caught.value) and "ems up" in caught.value.hint
    assert (target / "spec.json").exists()


def forged(folder, members):
    """A zip whose name is right and whose members are as given: (name, content, mode)."""
    aside = folder / "forged"
    with ZipFile(aside, "w") as archive:
        for name, content, mode in members:
            about = ZipInfo(name)
            about.create_system = 3
            about.external_attr = mode << 16
            archive.writestr(about, content)
    return aside.rename(folder / f"{hashlib.sha256(aside.read_bytes()).hexdigest()}.zip")


FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", "x", FILE)],
        [("code/../../evil", "x", FILE)],
        [("/tmp/../evil", "x", FILE)],
        [("code/link", "/etc", LINK)],
        [("code/link", "../../..", LINK)],
        [("code/a", ".", LINK), ("code/b/c", "../a/../../..", LINK)],
        [("code/loop", "loop", LINK), ("code/other", "loop/../../../..", LINK)],
    ],
)
def test_members_that_lead_outside_are_refused(tmp_path, members):
    target = tmp_path / "inner" / "run"
    with pytest.raises(ProvenanceError, match=r"outside|nowhere"):
        unpack(forged(tmp_path, members), target)
    assert not target.exists()
    assert not (tmp_path / "evil").exists() and not (tmp_path / "inner" / "evil").exists()


def test_no_file_is_written_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    members = [("code/link", str(tmp_path / "outside"), LINK), ("code/link/evil", "x", FILE)]
    with pytest.raises((ProvenanceError, FileExistsError)):
        unpack(forged(tmp_path, members), tmp_path / "run")
    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "run").exists()


def test_a_file_that_is_no_zip_is_named(tmp_path):
    content = b"no zip"
    path = tmp_path / f"{hashlib.sha256(content).hexdigest()}.zip"
    path.write_bytes(content)
    with pytest.raises(ProvenanceError, match="is not a bundle"):
        unpack(path, tmp_path / "run")
