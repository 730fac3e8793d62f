from __future__ import annotations

import dataclasses
import socket
import subprocess
import uuid

import pytest

from ems import lab
from ems.base.errors import NoTables, StoreUnavailable, UserError

ID = "d1b2a3c4-0000-4000-8000-000000000000"
GOOD = f"name: study\nconfig:\n  ems:lab_id: {ID}\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "Pulumi.yaml").write_text(GOOD)
    return tmp_path


@pytest.mark.parametrize("setting", [ID, f"{{value: {ID}}}"])
def test_a_lab_is_read_in_both_ways_of_writing_a_setting(setting, root):
    (root / "Pulumi.yaml").write_text(GOOD.replace(ID, setting))
    found = lab.read(root)
    assert (found.name, found.id, found.database_url) == ("study", uuid.UUID(ID), lab.DEFAULT_DATABASE)


def test_the_lab_is_found_from_a_folder_below(root, monkeypatch):
    below = root / "experiments" / "a b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert lab.find() == lab.read(root.resolve())
    assert lab.find().work_dir == root.resolve() / ".ems"


def test_a_database_that_is_gone_is_not_one_that_never_was(root):
    here = lab.read(root)
    with pytest.raises(NoTables) as caught, here.database() as database:
        database.experiments()
    assert str(caught.value).endswith("Make them: ems up lab")
    for name in ("a", "b"):
        (here.work_dir / "runs" / name).mkdir(parents=True)
    with pytest.raises(NoTables, match="2 runs of this folder were in one") as caught, here.database() as database:
        database.experiments()
    assert "Restore a copy" in caught.value.hint


def test_outside_a_lab(tmp_path):
    with pytest.raises(UserError, match=r"not in a lab(.|\n)*ems init DIR"):
        lab.find(tmp_path)


@pytest.mark.parametrize(
    "text, part",
    [
        ("", r"is empty \(null\): allowed is a mapping"),
        ("[1]", "is a list of 1"),
        ("a: b: c", ":1: is not YAML"),
        (": bad: [", ":1: is not YAML"),
        ("\x00", "has the character"),
        (b"\xff\xfe\xff", "is not UTF-8"),
        ("config: {}", "name: is empty"),
        ("name: 3\nconfig: {}", "Pulumi.yaml:1: name: is 3"),
        ("name: a", r"config.ems:lab_id: is empty \(null\): allowed is a UUID"),
        ("name: a\nconfig: 3", ":2: config: is 3"),
        ("name: a\nconfig: {ems:lab_id: 12}", ":2: config.ems:lab_id: is 12"),
        ("name: a\nconfig: {ems:lab_id: {valeu: 1}}", ":2: config.ems:lab_id: is empty"),
        (f"{GOOD}  ems:lab_id: {ID}\n", ":4: has the key ems:lab_id again, as in line 3"),
        (f"%YAML 1.2\n---\n{GOOD}", "%YAML"),
        ("[" * 20_000, "nested deeper"),
        (f"{GOOD}  ems:database: 3\n", ":4: config.ems:database: is 3: allowed is a URL"),
    ],
)
def test_each_fault_of_the_file_is_told(text, part, root):
    (root / "Pulumi.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=part) as caught:
        lab.read(root)
    assert str(root / "Pulumi.yaml") in caught.value.message and "ems init DIR" in caught.value.hint


def test_a_file_that_cannot_be_read(root):
    (root / "Pulumi.yaml").unlink()
    with pytest.raises(UserError, match="cannot be read"):
        lab.read(root)


def test_stacks_are_those_with_a_file(root):
    found = lab.read(root)
    assert found.stacks() == []
    with pytest.raises(UserError, match="no stack file"):
        found.some_stacks()
    found.stacks_dir.mkdir()
    for name in ("Pulumi.b.yaml", "Pulumi.a.yaml", "Pulumi.yaml", "__main__.py", "notes.yaml"):
        (found.stacks_dir / name).touch()
    assert found.stacks() == found.some_stacks() == ["a", "b"]
    assert found.known(["b"]) == ["b"]
    with pytest.raises(UserError, match=r"'bb': did you mean b\? allowed are a, b"):
        found.known(["a", "bb"])


def test_the_plugin_must_be_there_and_executable(root):
    found = lab.read(root)
    with pytest.raises(UserError, match=r"missing or not executable(.|\n)*checkout HEAD -- plugins"):
        found.plugin()
    shim = root / "plugins" / "pulumi-resource-ems"
    shim.parent.mkdir()
    shim.touch(mode=0o755)
    assert found.plugin() == shim


def test_a_lab_made_by_an_earlier_ems_is_told_what_to_change(here):
    for file, (before, now) in lab.MOVED.items():
        path = here.root / file
        text = path.read_text()
        assert now in text and here.plugin()
        path.write_text(text.replace(now, before))
        with pytest.raises(UserError, match=rf"{file} names `{before}`, which is now `{now}`") as caught:
            here.plugin()
        subprocess.run(caught.value.hint.partition(": ")[2], shell=True, check=True)
        assert path.read_text() == text and here.plugin()


def test_an_unknown_key_of_ems_is_never_passed_over(root):
    (root / "Pulumi.yaml").write_text(GOOD + "  ems:databse: sqlite:///other.db\n  aws:region: us-east-1\n")
    with pytest.raises(UserError, match=r":4: config.ems:databse: is not a key here: did you mean ems:database\?"):
        lab.find(root)


def test_a_store_that_says_nothing_is_told_and_given_up(root, monkeypatch):
    monkeypatch.setattr(lab, "TOLD_S", 0.1)
    monkeypatch.setattr(lab, "STORE_S", 0.5)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "word")
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        here = dataclasses.replace(lab.read(root), store_url="s3://lab-store/files")
        with pytest.raises(StoreUnavailable, match=r"s3://lab-store/files did not answer within 0.5 s"):
            here.make_store_ready(said.append)
    assert said == ["waiting for the store s3://lab-store/files"]
