"""`inputs:` of an experiment: what is refused, what is staged, and what a job is given."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import stat
import threading
from pathlib import Path

import pytest

from ems import clusters
from ems.base import aside
from ems.base.errors import ProvenanceError, StackFileError
from ems.clusters.local import prepare
from ems.databases import State
from ems.engine import preflight
from ems.lab.stacks import StackFiles
from ems.node.agent.config import AgentConfig
from ems.node.agent.inputs import lay_out_inputs
from ems.provenance import digests, identity, inputs
from ems.stack import spec
from ems.stack.models import ExperimentSpec
from tests.conftest import commit, ran
from tests.processes import PATIENCE_S
from tests.web import serving

HEX = "0123456789abcdef" * 4
BASE = {
    "project": "p",
    "experimenter": "r",
    "funding": "f",
    "environment": "e",
    "job": {"command": "x"},
    "results": {"table": "t"},
}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def described(**files: object) -> ExperimentSpec:
    found = spec.parse("experiment", BASE | {"inputs": {name.replace("__", "."): said for name, said in files.items()}})
    assert isinstance(found, ExperimentSpec)
    return found


def faults(given: object) -> dict[str, str]:
    with pytest.raises(StackFileError) as caught:
        spec.parse("experiment", BASE | {"inputs": given})
    return {fault.key.removeprefix("ems:experiment.inputs"): fault.problem for fault in caught.value.faults}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root/data").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def web(tmp_path, monkeypatch):
    with serving(tmp_path) as (found, authority):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        yield found


def staged(root, experiment, said=None):
    return inputs.stage(root, experiment, (said if said is not None else []).append)


# What a stack file may say


@pytest.mark.parametrize(
    "url",
    [
        "data/rates 2.csv",
        "https://example.org/a.csv?download=1&version=2",
        "https://example.org:8443/a",
        "gs://bucket/some key/a.csv",
        "s3://bucket.with.dots/a@b",
        "file:///data/a.csv",
    ],
)
def test_where_a_file_may_be(url):
    found = described(a={"url": url, "sha256": HEX.upper()}).inputs["a"]
    assert (found.url, found.sha256) == (url, HEX)


@pytest.mark.parametrize(
    "url, problem",
    [
        ("/data/a.csv", "write file:///data/a.csv"),
        ("../a.csv", "has `..` in it"),
        ("~/a.csv", "starts with"),
        ("http://example.org/a", "allowed is a path from the lab's folder, as data/rates.csv, or https://…"),
        ("ftp://example.org/a", "allowed is"),
        ("https://example.org", "allowed is"),
        ("https://example.org/a#b", "allowed is"),
        ("https://example.org/ä", "allowed is"),
        ("gs://bucket", "allowed is"),
        ("s3://bucket/folder/", "allowed is"),
        ("file://host/a", "allowed is"),
        (3, "quote it"),
        ("", "allowed is"),
    ],
)
def test_where_it_may_not_be(url, problem):
    assert problem in faults({"a": {"url": url, "sha256": HEX}})[".a.url"]


@pytest.mark.parametrize(
    "url",
    [
        "https://me:hush@example.org/a",
        "https://hush@example.org/a",
        "s3://key:hush@bucket/a",
        "https://example.org/a?X-Amz-Credential=hush&b=1",
        "https://example.org/a?b=1&sig=hush",
        "https://example.org/a?access_token=hush",
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url):
    problem = faults({"a": {"url": url, "sha256": HEX}})[".a.url"]
    assert "leave it out" in problem and "hush" not in problem


@pytest.mark.parametrize("digest", ["abc", HEX + "0", HEX[:-1] + "g", 12, None, ""])
def test_a_digest_has_64_hexadecimal_digits(digest):
    assert "64 hexadecimal digits" in faults({"a": {"url": "a", "sha256": digest}})[".a.sha256"]


@pytest.mark.parametrize("name", [".hidden", "a/b", "a..b", "", "-a", "a b", "a" * 101, "ä"])
def test_a_name_is_one_of_a_file(name):
    assert any("allowed is" in problem for problem in faults({name: {"url": "a", "sha256": HEX}}).values())


def test_each_file_once_under_names_that_every_disk_tells_apart():
    found = faults({name: {"url": url, "sha256": HEX} for name, url in {"a": "x", "A": "y", "b": "x"}.items()})
    assert set(found) == {".A", ".b.url"} and "differs from a only in case" in found[".A"]
    assert "is that of a, too" in found[".b.url"]
    assert "is not a key here" in faults({"a": {"url": "x", "sha": HEX}})[".a.sha"]


def test_what_counts_is_the_content_not_the_place():
    def digest(**files):
        parts = {"tree": "t", "job": {}, "environment": "e", "python": "3", "env": {}}
        return identity.digest(**parts, inputs=inputs.content(described(**files)))

    here = digest(a={"url": "data/a", "sha256": HEX})
    assert here == digest(a={"url": "https://example.org/b", "sha256": HEX})
    assert here != digest(a={"url": "data/a", "sha256": HEX[::-1]})
    assert here != digest(b={"url": "data/a", "sha256": HEX})


# What is refused before anything is made


def add_inputs(here, text):
    file = here.stack_file("pi")
    lines = file.read_text().splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("    results:"))
    file.write_text("\n".join([*lines[:place], "    inputs:", f"      {text}", *lines[place:]]) + "\n")
    (here.root / ".gitignore").write_text((here.root / ".gitignore").read_text() + "/data/\n")
    commit(here.root)
    return place + 2


def problems(here):
    found = preflight.report(StackFiles(here, clusters.settings()), "pi")
    assert found.exit_code == (2 if found.problems else 0)
    if found.problems:
        with pytest.raises(StackFileError):
            preflight.require(StackFiles(here, clusters.settings()), "pi")
            preflight.require_inputs(StackFiles(here, clusters.settings()), "pi")
    return "\n".join(found.problems)


def test_check_tells_of_a_missing_and_of_a_changed_file_with_both_digests(here):
    line = add_inputs(here, f"rates.csv: {{url: data/rates.csv, sha256: {sha(b'old')}}}")
    file = here.root / "data/rates.csv"
    where = f'Pulumi.pi.yaml:{line}: ems:experiment.inputs."rates.csv"'
    said = problems(here)
    assert f'{where}.url: is "data/rates.csv", but {file} is not a file' in said
    file.parent.mkdir()
    file.write_bytes(b"new")
    said = problems(here)
    assert f"{where}.sha256: is {sha(b'old')}, but {file} has {sha(b'new')}" in said
    assert "write the new digest as sha256" in said and said.count("\n") == 0
    file.write_bytes(b"old")
    assert problems(here) == ""


def test_a_finished_experiment_needs_its_files_no_more(here):
    file = here.root / "data/rates.csv"
    file.parent.mkdir()
    file.write_bytes(b"old")
    add_inputs(here, f"rates.csv: {{url: data/rates.csv, sha256: {sha(b'old')}}}")
    for state in (None, State.SUCCEEDED):
        ran(here, state=state)
        file.unlink(missing_ok=True)
        assert (
            "is not a file" in "\n".join(preflight.report(StackFiles(here, clusters.settings()), "pi").problems)
        ) == (state is None)
    file.write_bytes(b"new")
    assert "write the new digest" in problems(here)


def test_check_prints_the_digest_of_a_local_file_that_has_none_yet(here):
    line = add_inputs(here, "a: {url: data/a}")
    (here.root / "data").mkdir()
    (here.root / "data/a").write_bytes(b"content")
    said = problems(here)
    assert f"Pulumi.pi.yaml:{line}: ems:experiment.inputs.a.sha256: is missing: " in said and sha(b"content") in said
    assert not list((here.root / ".ems").glob("**/*.db"))


@pytest.mark.parametrize(
    "url, command", [("https://example.org/a", "curl"), ("gs://bucket/a", "gcloud"), ("s3://bucket/a", "aws")]
)
def test_check_names_the_command_that_prints_the_digest_of_a_remote_file(here, url, command):
    add_inputs(here, f"a: {{url: '{url}'}}")
    said = problems(here)
    assert f"is missing: `{command} " in said and f"{url} " in said and "| sha256sum` prints it" in said


# Digests are remembered


def test_a_file_is_read_again_only_once_it_has_changed(tmp_path, monkeypatch):
    file = tmp_path / "a"
    file.write_bytes(b"one")
    monkeypatch.setattr(digests, "SETTLED_NS", 0)
    read = []
    real = digests.sha256
    monkeypatch.setattr(digests, "sha256", lambda path: read.append(path) or real(path))
    assert [digests.known_sha256(file) for _ in range(3)] == [sha(b"one")] * 3 and len(read) == 1
    before = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as if it had not been touched
    assert digests.known_sha256(file) == sha(b"two") and len(read) == 2
    for memo in (tmp_path / "cache/digests").iterdir():
        memo.write_text("")
    assert digests.known_sha256(file) == sha(b"two")


def test_a_file_that_was_written_just_now_is_not_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED_NS", 10**15)
    (tmp_path / "a").write_bytes(b"one")
    assert digests.known_sha256(tmp_path / "a") == sha(b"one") and not (tmp_path / "cache").exists()


# Staging


def test_a_local_file_is_copied_once_read_only_and_keeps_its_suffix(root, cache):
    (root / "data/a").write_bytes(b"content")
    (root / "b c.csv").write_bytes(b"other")
    url = (root / "b c.csv").as_uri()
    experiment = described(
        a__csv__gz={"url": "data/a", "sha256": sha(b"content")}, b={"url": url, "sha256": sha(b"other")}
    )
    found = staged(root, experiment)
    assert {name: file.read_bytes() for name, file in found.items()} == {"a.csv.gz": b"content", "b": b"other"}
    assert [file.name for file in found.values()] == [f"{sha(b'content')}.csv.gz", sha(b"other")]
    assert all(
        stat.S_IMODE(file.stat().st_mode) == 0o444 and file.parent == cache / "inputs" for file in found.values()
    )
    (root / "data/a").unlink()
    before = found["a.csv.gz"].stat()
    again = staged(root, experiment)
    assert again == found and again["a.csv.gz"].stat() == before
    assert {file.suffix for file in (cache / "inputs").iterdir()} == {".gz", ".lock", ""}


def test_a_file_that_changed_since_it_was_checked_is_refused_with_both_digests(root, cache):
    (root / "a").write_bytes(b"new")
    with pytest.raises(ProvenanceError) as caught:
        staged(root, described(a={"url": "a", "sha256": sha(b"old")}))
    assert sha(b"old") in str(caught.value) and sha(b"new") in str(caught.value)
    assert [file.suffix for file in (cache / "inputs").iterdir()] == [".lock"]
    with pytest.raises(ProvenanceError, match=r"nosuch cannot be read: No such file"):
        staged(root, described(a={"url": "nosuch", "sha256": sha(b"old")}))


def test_a_cached_file_that_a_job_changed_is_staged_anew(root):
    (root / "a").write_bytes(b"content")
    experiment = described(a={"url": "a", "sha256": sha(b"content")})
    file = staged(root, experiment)["a"]
    file.chmod(0o644)
    assert staged(root, experiment)["a"].read_bytes() == b"content" and stat.S_IMODE(file.stat().st_mode) == 0o444
    before = file.stat()
    file.chmod(0o644)
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    file.chmod(0o444)
    assert staged(root, experiment)["a"].read_bytes() == b"content" and stat.S_IMODE(file.stat().st_mode) == 0o444


def test_a_remote_file_is_fetched_with_progress_and_a_changed_one_refused(root, web):
    web.files["/a.csv"] = b"old" * 1000
    experiment = described(a__csv={"url": web.url("/a.csv"), "sha256": sha(b"old" * 1000)})
    said = []
    assert staged(root, experiment, said)["a.csv"].read_bytes() == b"old" * 1000
    assert said[0] == "input a.csv: 0.0 of 0.0 MB" and said[-1] == "input a.csv: checking it"
    web.files["/a.csv"] = b"new"
    assert staged(root, experiment)["a.csv"].read_bytes() == b"old" * 1000 and len(web.asked) == 1
    with pytest.raises(ProvenanceError) as caught:
        staged(root, described(a__csv={"url": web.url("/a.csv"), "sha256": HEX}))
    assert HEX in str(caught.value) and sha(b"new") in str(caught.value) and web.url("/a.csv") in str(caught.value)


def test_what_an_interrupted_staging_left_is_completed_or_thrown_away(root, web, cache):
    content = bytes(range(256)) * 100
    web.files["/a"] = content
    experiment = described(a={"url": web.url("/a"), "sha256": sha(content)})
    (cache / "inputs").mkdir(parents=True)
    part = cache / "inputs" / f"{sha(content)}.part"
    part.write_bytes(content[:1000])
    file = staged(root, experiment)["a"]
    assert file.read_bytes() == content and web.asked == [("/a", "bytes=1000-")]
    file.unlink()
    part.write_bytes(b"something else")
    assert staged(root, experiment)["a"].read_bytes() == content
    assert web.asked[1:] == [("/a", "bytes=14-"), ("/a", None)]


def stage_in_a_process(root: Path, experiment: ExperimentSpec, ready: threading.Barrier) -> None:
    ready.wait(PATIENCE_S)
    assert inputs.stage(root, experiment, print)["a"].stat().st_size == 1 << 20


def test_a_remote_file_that_changes_while_it_comes_is_begun_anew(root, web):
    """What is stored is one state of a file, and an error never names the digest of a mixture of two."""
    old, new = bytes(5_000), b"new" * 2_000
    web.files["/a"], web.tags, web.cut_after, web.changes = old, False, [1000], [new]
    assert staged(root, described(a={"url": web.url("/a"), "sha256": sha(new)}))["a"].read_bytes() == new
    web.files["/b"], web.cut_after, web.changes = old, [1000, 10_000] * 3, [new, old] * 3
    with pytest.raises(ProvenanceError) as caught:
        staged(root, described(b={"url": web.url("/b"), "sha256": HEX}))
    assert "changes while it is read" in str(caught.value) and "sha256" not in str(caught.value)


def test_two_at_once_fetch_once(root, web):
    content = os.urandom(1 << 20)
    web.files["/a"], web.cut_after = content, [1000]  # the first one pauses, while the other one waits for it
    experiment = described(a={"url": web.url("/a"), "sha256": sha(content)})
    spawn = multiprocessing.get_context("spawn")
    ready = spawn.Barrier(2)
    both = [spawn.Process(target=stage_in_a_process, args=(root, experiment, ready)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(PATIENCE_S)
    assert [process.exitcode for process in both] == [0, 0]
    assert web.asked == [("/a", None), ("/a", "bytes=1000-")]


# What a job is given


def test_the_folder_has_the_files_by_name_and_takes_no_more(root):
    (root / "a").write_bytes(b"content")
    folder = root / "inputs"
    for _ in range(2):  # an attempt that follows another one
        lay_out_inputs({"a.csv": str(root / "a")}, folder)
        assert [(file.name, file.read_bytes()) for file in folder.iterdir()] == [("a.csv", b"content")]
        assert stat.S_IMODE(folder.stat().st_mode) == 0o555
    for _ in range(2):
        aside.remove(folder)
        assert not folder.exists() and (root / "a").exists()


def test_what_is_prepared_names_the_staged_files(here):
    add_inputs(here, f"a.csv: {{url: data/a.csv, sha256: {sha(b'content')}}}")
    (here.root / "data").mkdir()
    (here.root / "data/a.csv").write_bytes(b"content")
    row = preflight.require(StackFiles(here, clusters.settings()), "pi").row
    said = []
    prepare(here, row, said.append)
    config = AgentConfig.read(here.run_dir(row.id))
    assert {name: Path(file).read_bytes() for name, file in config.inputs.items()} == {"a.csv": b"content"}
    assert "input a.csv: checking it" in said
