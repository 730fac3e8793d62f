"""What a run would end with is told before, if the job's own files show it; where they do not, nothing is said."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ems.base.errors import StackFileError
from ems.lab.repository import work_tree
from ems.node.driver.worker import BOOT
from ems.node.driver.worker_process import SOURCE
from ems.provenance import code as provenance
from ems.provenance import environment, sources
from ems.provenance.environment import Environment
from ems.stack import spec
from ems.stack.models import CodeSpec
from tests.provenance.labs import commit, git, make_lab, write

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
MODEL = """
import functools
from math import sin as sinus
LIMIT = 3
def f(theta, seed=0, *, scale): return {}
def anything(**parameters): return {}
def first(theta, /): return {}
async def later(theta): return {}
def given(theta, context): return {}
def data(path="x", *, size=3): return {}
def needy(path, size=3, *, name): return {}
@functools.cache
def wrapped(whatever): return {}
class Point:
    def __init__(self, theta): ...
if LIMIT:
    def conditional(a): return {}
alias = f
"""
FILES = {
    "model.py": MODEL,
    "package/__init__.py": "",
    "package/inner.py": "def g(x): return {}\n",
    "folder/inner.py": "def g(x): return {}\n",
    "alike/inner.py": "def g(x): return {}\n",
    "open.py": "from model import *\n",
    "late.py": "def __getattr__(name): ...\n",
    "twice.py": "",
    "twice/__init__.py": "def g(x): return {}\n",
    "wide/__init__.py": "__path__ = []\n",
    "broken.py": "def f(:\n",
    "random.py": "def f(x): return {}\n",
    "string.py": "def f(x): return {}\n",
    "code/x.py": "def f(x): return {}\n",
    "ems/x.py": "def f(x): return {}\n",
    "profile.py": "def f(x): return {}\n",
    "src/job_code.py": "def f(x): return {}\n",
    "run/job.py": "print(1)\n",
    "run/job.sh": "echo\n",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = make_lab(tmp_path_factory.mktemp("sources") / "lab")
    write(root, FILES)
    (root / "run/tool").write_text("#!/bin/sh\n")
    (root / "run/tool").chmod(0o755)
    commit(root)
    return root


LOCK = "alike-tools==1.0 --hash=sha256:0\n"


def said(lab, job, env=None):
    described = {
        "project": "p",
        "experimenter": "e",
        "funding": "f",
        "environment": "small",
        "job": job,
        "results": {"table": "t"},
        "env": env or {},
    }
    experiment = spec.parse("experiment", described)
    tree = work_tree(lab)
    code = provenance.at_commit(tree, CodeSpec(commit=git(lab, "rev-parse", "HEAD")))
    try:
        sources.refuse(tree.objects(), code, experiment, Environment("small", HERE, LOCK))
    except StackFileError as error:
        return "\n".join(map(str, error.faults))
    return ""


@pytest.mark.parametrize(
    "function, names, fault",
    [
        ("model:f", "theta scale", ""),
        ("model:f", "theta seed scale", ""),
        ("model:f", "theta", "ems:experiment.job.sweep: lacks scale, which f in model.py:5 needs"),
        ("model:f", "thetta scale", "sweep.thetta: is not a parameter of f in model.py:5: did you mean theta?"),
        ("model:f", "scale", "lacks theta"),
        ("model:anything", "a b", ""),
        ("model:first", "theta", "theta: is not a parameter of first"),
        ("model:later", "x", "is not a parameter of later"),
        ("model:wrapped", "x", ""),
        ("model:Point", "x", ""),
        ("model:conditional", "x", ""),
        ("model:alias", "x", ""),
        ("model:sinus", "x", ""),
        ("model:LIMIT", "x", ""),
        ("model:ff", "x", 'job.function: is "ff", which model.py does not have: did you mean f?'),
        ("model:nosuch", "x", "which model.py does not have"),
        ("package.inner:g", "x", ""),
        ("folder.inner:g", "x", ""),
        ("twice:g", "x", ""),
        ("package:g", "x", "which package/__init__.py does not have"),
        ("package.iner:g", "x", "is in package.iner, which code.paths do not hold: did you mean package.inner?"),
        ("folder.iner:g", "x", "is in folder.iner, which code.paths do not hold: did you mean folder.inner?"),
        ("alike.iner:g", "x", ""),
        ("wide.inner:g", "x", ""),
        ("open:whatever", "x", ""),
        ("late:whatever", "x", ""),
        ("broken:f", "x", "is in broken.py, which is not Python: line 1"),
        ("numpy.linalg:svd", "x", ""),
        ("random:f", "x", ""),
        ("string:f", "x", "is in string, the name of Python's own module"),
        ("code.x:f", "x", "is in code, the name of Python's own module"),
        ("ems.x:f", "x", "is in ems, the name of EMS's own module"),
        ("profile:f", "x", ""),
    ],
)
def test_functions_and_what_they_take(lab, function, names, fault):
    found = said(lab, {"function": function, "sweep": {name: [1, 2] for name in names.split()}})
    assert fault in found and bool(found) is bool(fault)


@pytest.mark.parametrize(
    "function, setup, fault",
    [
        ("model:given", "model:data", ""),
        ("model:anything", "model:data", ""),
        ("model:wrapped", "model:data", ""),
        ("model:given", "model:alias", ""),
        ("model:given", "model:wrapped", ""),
        ("model:given", "numpy:zeros", ""),
        ("model:given", None, "sweep: lacks context, which given in model.py:"),
        (
            "model:later",
            "model:data",
            "job.setup: gives its value by the keyword `context`, which is not a parameter of",
        ),
        (
            "model:given",
            "model:needy",
            "job.setup: is called without arguments, but needy in model.py:11 needs path, name",
        ),
        ("model:given", "model:dta", 'job.setup: is "dta", which model.py does not have: did you mean data?'),
        ("model:given", "package.iner:g", "job.setup: is in package.iner, which code.paths do not hold"),
    ],
)
def test_set_ups_and_who_takes_what_they_return(lab, function, setup, fault):
    found = said(lab, {"function": function, "sweep": {"theta": [1, 2]}, **({"setup": setup} if setup else {})})
    assert fault in found and bool(found) is bool(fault)


@pytest.fixture
def built(monkeypatch, tmp_path):
    """The site-packages of the environment, built."""
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path))
    folder = environment.built_folder(Environment("small", HERE, LOCK))
    packages = folder / f"lib/python{HERE}/site-packages"
    (packages / "there").mkdir(parents=True)
    (packages / "compiled.cpython-311-x86_64-linux-gnu.so").touch()
    (packages / "_virtualenv.pth").touch()
    (folder / "bin").mkdir()
    (folder / "bin/python").touch()
    (folder / environment.MARKER).touch()
    return packages


NEITHER = "which neither code.paths nor the environment small have"


@pytest.mark.parametrize("key", ["function", "setup", "propose"])
def test_modules_that_are_nowhere_are_told_once_the_environment_is_built(lab, built, key):
    job = {"function": "model:given", "setup": "model:data", "sweep": {"theta": [1, 2]}, key: "modle:f"}
    found = said(lab, job)
    assert found.startswith(f"ems:experiment.job.{key}: is in modle, {NEITHER}: did you mean model? allowed are ")
    for module in ("there", "there.deep", "compiled", "math"):
        assert said(lab, job | {key: f"{module}:f"}) == ""
    assert said(lab, job, {"PYTHONPATH": "/elsewhere"}) == ""
    (built / "editable.pth").write_text("/elsewhere\n")
    assert said(lab, job) == ""


def test_a_module_in_a_folder_is_told_with_the_line_that_names_it(lab, built):
    job = {"function": "job_code:f", "sweep": {"x": [1]}}
    way = "src/job_code.py is it with env: {PYTHONPATH: src}"
    assert said(lab, job) == f"ems:experiment.job.function: is in job_code, {NEITHER}: {way}"
    assert said(lab, job, {"PYTHONPATH": "src"}) == "" == said(lab, job, {"PYTHONPATH": "./src/"})
    wrong = said(lab, job | {"function": "job_code:g"}, {"PYTHONPATH": "src"})
    assert 'is "g", which job_code.py does not have: allowed are f' in wrong
    nowhere = job | {"function": "nowhere:f"}
    assert NEITHER in said(lab, nowhere, {"PYTHONPATH": "src"})
    assert said(lab, nowhere, {"PYTHONPATH": "src:/opt/tools"}) == ""


def test_a_folder_of_the_code_gives_way_to_a_package_that_is_built(lab, built):
    job = {"sweep": {"x": [1, 2]}, "function": "alike.iner:g"}
    assert "is in alike.iner, which code.paths do not hold: did you mean alike.inner?" in said(lab, job)
    (built / "alike").mkdir()
    assert said(lab, job) == ""


def test_each_grid_is_compared_with_the_function(lab):
    grids = [{"theta": [1], "scale": [1]}, {"theta": [1], "zip": [{"scale": [1, 2], "sede": [1, 2]}]}]
    found = said(lab, {"function": "model:f", "sweep": grids})
    assert "sweep[1].sede: is not a parameter" in found and "did you mean seed?" in found and found.count("\n") == 0


@pytest.mark.parametrize(
    "command, fault",
    [
        ("python run/job.py --n 3", ""),
        ("python ./run/../run/job.py", ""),
        ("python3.12 run/jb.py", 'job.command: runs "run/jb.py", which code.paths do not hold'),
        ("python run/jb.py", 'did you mean "run/job.py"?'),
        ("bash docs/x.sh", "code.paths do not hold"),
        ("python -m run.nosuch", ""),
        ("python -c pass", ""),
        ("run/tool", ""),
        ("run/job.sh", 'starts "run/job.sh", which is not executable: git update-index --chmod=+x run/job.sh'),
        ("bash run/job.sh", ""),
        ("/bin/echo nosuch.py", ""),
        ("echo nosuch.py", ""),
        ("python /opt/x.py", ""),
        ("python ../x.py", ""),
    ],
)
def test_files_of_programs(lab, command, fault):
    found = said(lab, {"command": command})
    assert fault in found and bool(found) is bool(fault)


def test_what_a_worker_has_loaded_before_the_code_is_on_its_path():
    script = BOOT.replace("serve(", "print(*{name.partition('.')[0] for name in sys.modules}) #")
    command = [sys.executable, "-c", script, SOURCE, "order", "0"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) >= sources.LOADED_FIRST
    assert all(importlib.util.find_spec(name) for name in sources.LOADED_FIRST)


@pytest.mark.parametrize(
    "target, fault",
    [
        ("job.py", ""),
        ("../package", ""),
        ("..", ""),
        ("../README.md", "run/link -> ../README.md"),
        ("nosuch.csv", "run/link -> nosuch.csv"),
        ("../.git/annex/objects/Xx/Yy/SHA256E-s1--0/SHA256E-s1--0", "(kept by git-annex)"),
    ],
)
def test_links_lead_to_what_the_job_has(tmp_path, target, fault):
    root = make_lab(tmp_path / "lab")
    write(root, FILES)
    (root / "run/link").symlink_to(target)
    commit(root)
    found = said(root, {"command": "python run/job.py"})
    assert fault in found and bool(found) is bool(fault)
