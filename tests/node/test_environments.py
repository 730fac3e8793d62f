"""Environments as archives: built by `uv`, unpacked on "nodes" that are folders here, used by several users."""

from __future__ import annotations

import json
import os
import platform
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from threading import Thread

import pytest

from ems.base import seal
from ems.base.errors import EmsError, ProvenanceError
from ems.base.process import uv
from ems.clusters import shipping
from ems.node.environments import archive, claims, python, scratch
from ems.node.environments.recipe import Order, Recipe
from tests.clusters.slurm_server import GROUP, USERS, make_users
from tests.processes import eventually

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
LOCK = """\
tabulate==0.9.0 \\
    --hash=sha256:0095b12bf5966de529c0feb1fa08671671b3368eec77d7ef7ab114be2c068b3c \\
    --hash=sha256:024ca478df22e9340661486f85298cff5f6dcdba14f3813e8830015b9ed1948f
"""
NOTHING = Recipe("none", "0" * 64, HERE, "")
NODE = """
import sys
sys.path.insert(0, sys.argv[1])
from importlib import metadata
from pathlib import Path
from ems.node.environments import ready, scratch
from ems.node.environments.recipe import Order
order = Order.read(Path(sys.argv[2]) / ready.ORDER)
print(scratch.unpacked(order.experiment, order, ready._say))
"""
CLAIM = """
import sys
sys.path.insert(0, sys.argv[1])
from importlib import metadata
from pathlib import Path
from ems.node.environments import claims
assert claims._take(Path(sys.argv[2]), "1")
"""
BUILDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from ems.node.environments import claims
with claims.turn(Path(sys.argv[2]), print):
    time.sleep(600)
"""
SLOW = '#!/bin/sh\necho $$ >> {log}\nsleep {seconds}\nexec {uv} "$@"\n'


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


class Lab:
    """A run folder, a folder for archives, and nodes."""

    def __init__(self, folder: Path, recipe: Recipe | None = None) -> None:
        self.folder, self.archives = folder, folder / "archives"
        self.archives.mkdir(exist_ok=True)
        self.recipe = recipe or Recipe("small", "a" * 64, HERE, LOCK)
        shipping.zip_code(folder / "ems.zip")
        from uv import find_uv_bin

        self.uv = find_uv_bin()
        self.variables = {"UV_CACHE_DIR": uv("cache", "dir").strip()}

    def order(self, node: str) -> Order:
        run_dir = self.folder / node
        run_dir.mkdir(exist_ok=True)
        order = Order(
            self.recipe, self.recipe, str(self.archives), str(self.folder / node / "scratch"),
            str(self.folder / "ems.zip"), self.uv, self.variables,
        )  # fmt: skip
        order.write(run_dir / "environments.json")
        return order

    def unpacked(self, node: str = "n1", said: list[str] | None = None) -> Path:
        return scratch.unpacked(self.recipe, self.order(node), (said if said is not None else []).append)

    def start(self, node: str, job: str, **env: str) -> subprocess.Popen[str]:
        """A job on a node that has its environment made ready."""
        self.order(node)
        words = [sys.executable, "-I", "-c", NODE, str(self.folder / "ems.zip"), str(self.folder / node)]
        return subprocess.Popen(
            words, env={**os.environ, "SLURM_JOB_ID": job, **env}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def archived(self) -> Path:
        (found,) = [path for path in self.archives.iterdir() if path.suffix == ""]
        return found

    def left(self) -> list[str]:
        """What lies beside the archives."""
        return [path.name for path in self.archives.iterdir() if path.suffix]


def version(environment: Path) -> str:
    said = subprocess.run([environment / "bin/tabulate", "--help"], capture_output=True, text=True, check=True)
    assert "Pretty-print" in said.stdout
    code = "import sys, tabulate; print(tabulate.__version__, sys.prefix)"
    done = subprocess.run([environment / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=True)
    number, prefix = done.stdout.split()
    assert Path(prefix) == environment
    return number


# The archive


def test_it_is_built_once_and_works_on_every_node_at_its_own_path(lab):
    said: list[str] = []
    first = lab.unpacked("n1", said)
    assert "environment small: built" in said
    again: list[str] = []
    second = lab.unpacked("n2", again)
    assert [version(first), version(second)] == ["0.9.0", "0.9.0"]
    assert not any("built" in step for step in again)
    assert first != second
    assert lab.left() == []
    checked = subprocess.run(["sha256sum", "-c", archive.SUM], cwd=lab.archived, capture_output=True, check=False)
    assert checked.returncode == 0
    texts = (path.read_bytes() for path in second.rglob("*") if path.is_file() and path.suffix in {"", ".py", ".cfg"})
    assert not any(str(first).encode() in text for text in texts)


def test_a_node_unpacks_it_once_and_anew_if_it_was_changed(lab):
    unpacked = lab.unpacked()
    file = next(unpacked.rglob("tabulate/__init__.py"))
    with pytest.raises(PermissionError) if os.geteuid() else pytest.raises(FileExistsError):
        (file.open("a") if os.geteuid() else file.open("x")).close()
    said: list[str] = []
    assert lab.unpacked("n1", said) == unpacked and said == []
    file.chmod(0o644)
    file.write_text("")
    assert lab.unpacked("n1", said) == unpacked
    assert version(unpacked) == "0.9.0" and any("unpacked on" in step for step in said)


def cut(folder: Path) -> None:
    os.truncate(folder / archive.FILE, (folder / archive.FILE).stat().st_size // 2)


def flip(folder: Path) -> None:
    data = bytearray((folder / archive.FILE).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / archive.FILE).write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        cut, flip,
        lambda folder: (folder / archive.FILE).unlink(),
        lambda folder: (folder / archive.SUM).unlink(),
        lambda folder: (folder / archive.SUM).write_bytes(b"\xff\x00"),
        lambda folder: (folder / archive.FILE).write_bytes(b""),
        shutil.rmtree,
        lambda folder: [path.unlink() for path in folder.iterdir()],
    ],
)  # fmt: skip
def test_what_was_purged_cut_or_damaged_is_noticed_and_built_again(lab, spoil):
    lab.unpacked("n1")
    spoil(lab.archived)
    said: list[str] = []
    assert version(lab.unpacked("n2", said)) == "0.9.0"
    assert "environment small: built" in said and lab.left() == []
    assert version(lab.unpacked("n3", again := [])) == "0.9.0" and not any("built" in step for step in again)


def test_a_folder_that_another_user_made_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    (tmp_path / "ems-4000000").mkdir()
    with pytest.raises(EmsError, match="another user's"):
        scratch.own(scratch.folder(str(tmp_path)))


def test_the_scratch_folder_is_the_settings_else_the_first_that_the_node_has(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("L_SCRATCH", str(tmp_path / "gone"))
    assert scratch.folder("").parent == tmp_path
    (tmp_path / "gone").mkdir()
    assert scratch.folder("").parent == tmp_path / "gone"
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setenv("L_SCRATCH", str(tmp_path / "gone/4711"))
    (tmp_path / "gone/4711").mkdir()
    assert scratch.folder("").parent == tmp_path
    monkeypatch.setenv("HERE", str(tmp_path / "set"))
    assert scratch.folder("$HERE").parent == tmp_path / "set"
    scratch.own(scratch.folder("$HERE"))
    assert (tmp_path / "set" / f"ems-{os.getuid()}").stat().st_mode & 0o777 == 0o700


def test_what_was_not_used_for_a_month_goes(lab):
    unpacked = lab.unpacked()
    lock = unpacked.with_name(f"{unpacked.name}.lock")
    os.utime(lock, (time.time() - scratch.KEPT_S - 60,) * 2)
    lab.recipe = NOTHING
    lab.unpacked()
    assert not unpacked.exists()


# Who builds


def test_several_jobs_at_once_build_it_once(lab):
    jobs = [lab.start(f"n{number}", str(number)) for number in range(4)]
    said = [job.communicate() for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, said
    assert sum("small: built" in stderr for _, stderr in said) == 1
    assert len({stdout for stdout, _ in said}) == 4 and lab.left() == []


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The jobs that run, a line each: what `squeue` is asked for where there is no Slurm."""
    file, program = tmp_path / "running", tmp_path / "bin/squeue"
    program.parent.mkdir()
    file.touch()
    program.write_text(f'#!/bin/sh\ngrep -qx "$3" {file} && echo RUNNING || {{ echo "Invalid job id" >&2; exit 1; }}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(claims, "ASK_S", 0.2)
    return file


def test_a_builder_that_was_killed_leaves_nothing_that_is_used_and_another_takes_over(lab, squeue, tmp_path):
    squeue.write_text("7\n")
    slow, log = tmp_path / "bin/uv", tmp_path / "uv.log"
    slow.write_text(SLOW.format(log=log, seconds=600, uv=lab.uv))
    slow.chmod(0o755)
    killed = lab.start("n1", "7")
    eventually(log.exists)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    slow.unlink()
    heir = lab.start("n2", "8")
    with pytest.raises(subprocess.TimeoutExpired):
        heir.wait(3)  # Slurm says that job 7 runs
    squeue.write_text("")
    _, said = heir.communicate(timeout=60)
    assert heir.returncode == 0 and "job 7 began to build it, and does not run any more" in said, said
    assert lab.left() == []


def test_without_slurm_a_builder_is_waited_for_as_long_as_its_process_lives(lab, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(claims, "ASK_S", 0.1)
    monkeypatch.setattr(claims, "LOOK_S", 0.1)
    archived = lab.archives / scratch.key_of(lab.recipe, python.find(lab.recipe, lab.order("n1")))
    claim, said = archived.with_name(f"{archived.name}.building"), []
    words = [sys.executable, "-I", "-c", BUILDER, str(lab.folder / "ems.zip"), str(archived)]
    with subprocess.Popen(words) as builder:
        eventually(claim.exists)
        waiting = Thread(target=lab.unpacked, args=("n1", said))
        waiting.start()
        eventually(lambda: said)
        waiting.join(1)
        assert waiting.is_alive() and not archived.exists()
        builder.kill()
    waiting.join(60)
    who = f"process {builder.pid} of {platform.node()}"
    assert said[0] == f"environment small: {who} builds it"
    assert f"environment small: {who} began to build it, and does not run any more" in said
    assert archived.exists() and lab.left() == []


def test_a_claim_whose_holder_a_power_cut_has_erased_is_taken_over(lab, monkeypatch):
    monkeypatch.setattr(claims, "ASK_S", 0.1)
    archived = lab.archives / scratch.key_of(lab.recipe, python.find(lab.recipe, lab.order("n1")))
    assert claims._take(archived.with_name(f"{archived.name}.building"), "")
    assert version(lab.unpacked()) == "0.9.0" and lab.left() == []


def test_the_folder_of_archives_is_made_where_it_is_missing(lab):
    lab.archives.rmdir()
    assert version(lab.unpacked()) == "0.9.0" and lab.left() == []


def test_a_job_that_was_started_again_takes_its_own_claim(lab, squeue):
    lab.order("n1")
    squeue.write_text("7\n")
    key = scratch.key_of(lab.recipe, python.find(lab.recipe, lab.order("n1")))
    assert claims._take(lab.archives / f"{key}.building", "7")
    job = lab.start("n1", "7")
    _, said = job.communicate(timeout=60)
    assert job.returncode == 0 and lab.left() == [], said


def test_an_error_of_a_build_names_the_package_and_leaves_nothing(lab):
    lab.recipe = Recipe("small", "b" * 64, HERE, LOCK.replace("sha256:0", "sha256:1"))
    with pytest.raises(ProvenanceError, match=r"(?s)'small' cannot be installed.*tabulate"):
        lab.unpacked()
    assert list(lab.archives.iterdir()) == []
    scratch = lab.folder / "n1/scratch"
    assert [path.name for path in scratch.glob("ems-*/*") if path.suffix not in {".lock", ".zip"}] == []


# Several members of a group


def as_user(user: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    person = pwd.getpwnam(user)
    return subprocess.run(
        words, user=person.pw_uid, group=person.pw_gid, extra_groups=os.getgrouplist(user, person.pw_gid), cwd=cwd,
        env={"HOME": person.pw_dir, "PATH": f"{cwd}:/usr/bin:/bin", "SLURM_JOB_ID": user}, umask=0o077,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_members_of_a_group_share_an_archive_and_its_repair(readable):
    lab = readable
    nodes = {user: lab.folder / user for user in USERS}

    def ready(user: str) -> str:
        nodes[user].mkdir(exist_ok=True)
        lab.order(user)
        for path in (nodes[user], nodes[user] / "environments.json"):
            shutil.chown(path, user, GROUP)
        words = ("/usr/bin/python3", "-I", "-c", NODE, str(lab.folder / "ems.zip"), str(nodes[user]))
        done = as_user(user, *words, cwd=lab.folder)
        assert done.returncode == 0, done.stderr
        return done.stderr

    assert "built" in ready(USERS[0])
    assert "built" not in ready(USERS[1])
    about = lab.archived.stat()
    assert about.st_mode & 0o7777 == archive.FOLDER_MODE and pwd.getpwuid(about.st_uid).pw_name == USERS[0]
    cut(lab.archived)
    shutil.rmtree(nodes[USERS[1]])
    assert "is damaged" in ready(USERS[1])
    assert pwd.getpwuid(lab.archived.stat().st_uid).pw_name == USERS[1] and lab.left() == []
    lab.archives.chmod(0o2755)  # whoever may only read can still use it
    shutil.rmtree(nodes[USERS[0]])
    assert "built" not in ready(USERS[0])
    lab.archives.chmod(archive.FOLDER_MODE)
    stale = lab.archived.with_name(f"{lab.archived.name}.building")
    as_user(USERS[0], "/usr/bin/python3", "-I", "-c", CLAIM, str(lab.folder / "ems.zip"), str(stale), cwd=lab.folder)
    shutil.rmtree(lab.archived)
    shutil.rmtree(nodes[USERS[1]])
    assert "began to build it" in ready(USERS[1])
    assert lab.left() == []


@pytest.fixture
def readable() -> Iterator[Lab]:
    """One that other users can reach, with a Python of the system's own, and where no Slurm says what runs."""
    make_users()
    folder = Path(tempfile.mkdtemp(prefix="ems-shared-", dir="/tmp"))
    folder.chmod(0o755)
    asked = ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    lab = Lab(folder, Recipe("small", "c" * 64, subprocess.check_output(asked, text=True).strip(), ""))
    shutil.copy(lab.uv, folder / "uv")
    lab.uv, lab.variables = str(folder / "uv"), {}
    (folder / "ems.zip").chmod(0o644)
    shutil.chown(lab.archives, USERS[0], GROUP)
    lab.archives.chmod(archive.FOLDER_MODE)
    (folder / "squeue").write_text("#!/bin/sh\nexit 0\n")
    (folder / "squeue").chmod(0o755)
    yield lab
    shutil.rmtree(folder)


def test_an_order_is_for_its_owner_alone(lab):
    order = lab.order("n1")
    file = lab.folder / "n1/environments.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert Order.read(file) == order and json.loads(file.read_text())["uv"] == lab.uv
    assert seal.changes(lab.folder / "n1") is None


def test_agents_import_only_what_their_lock_has():
    """As modules of the standard library, of EMS, and of the packages that the lock pins."""
    code = "import sys, ems.clusters.slurm.head; print(*{m.partition('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pinned = {line.partition("==")[0] for line in shipping.LOCK.read_text().splitlines() if "==" in line}
    of = metadata.packages_distributions()
    for module in done.stdout.split():
        names = {name.lower().replace("_", "-") for name in of.get(module, [])} - {"ems-experiments"}
        assert not names or names & pinned or names <= {"setuptools", "matplotlib"}, (module, names)
