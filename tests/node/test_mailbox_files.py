"""Files that jobs leave far away are in the lab's store once they are recorded here, whole, whatever happens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ems.base.errors import DatabaseUnavailable, FencedOut, StoreUnavailable, Unreachable
from ems.databases import Claim, Outcome, Output, State
from ems.lab import outputs
from ems.node.mailbox import exchange
from ems.node.mailbox import files as mailbox_files
from ems.stores import Source
from ems.stores.file.store import FolderStore
from tests.databases.cases import now
from tests.node.mailboxes import ID, claimed, far, stored

__all__ = ["far"]

DONE = Outcome(State.SUCCEEDED, 2, 0)


@pytest.fixture(autouse=True)
def store(far):
    far.lab.make_store_ready()
    return far.lab.store()


def kept(far, tmp_path: Path, content: bytes) -> str:
    """In the mailbox's store, as an agent does it; its SHA-256."""
    file = tmp_path / "left"
    file.write_bytes(content)
    with Source(file) as source:
        return FolderStore(far.there / "mailbox/store").put(source).digest


def left(far, tmp_path: Path, claim: Claim, **found: bytes) -> None:
    """By point 0, files of these names and contents."""
    listed = [
        Output(0, name, kept(far, tmp_path, content), len(content), "text/plain") for name, content in found.items()
    ]
    far.mailbox.put_outputs(claim, listed)


def fetched(far, tmp_path: Path) -> dict[str, bytes]:
    """What the lab's database lists, with the contents in its store."""
    with far.lab.database() as database:
        listed = list(database.outputs(ID))
    targets = outputs.fetch(far.lab, listed, tmp_path / "to", points=False)
    return {target.output.name: target.path.read_bytes() for target in targets}


def remains(far) -> list[str]:
    """What the mailbox still has of files."""
    folders = [far.there / "mailbox/store", far.there / "mailbox/files"]
    found = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name for path in found if path.name != "ems-store.json")


def test_they_are_fetched_recorded_and_removed_there(far, tmp_path):
    claim = claimed(far)
    stored(far, claim, 0, 1)
    left(far, tmp_path, claim, a=b"one", b=b"", c=b"one")
    left(far, tmp_path, claim, d=b"two" * 1000)
    far.mailbox.release(claim, DONE)
    brought = far.pull.sync()
    assert (brought.batches, brought.batches_left) == (3, 0) and brought.bytes > 3003
    assert now(far.database).state is State.SUCCEEDED
    assert fetched(far, tmp_path) == {"a": b"one", "b": b"", "c": b"one", "d": b"two" * 1000}
    assert remains(far) == []
    assert far.pull.sync().bytes == 0


def test_a_run_has_not_ended_here_before_its_files_are(far, tmp_path, monkeypatch):
    """Each piece comes after the other one, in commands of their own, as after a cut."""
    monkeypatch.setattr(exchange, "MOST_BYTES", 1000)
    monkeypatch.setattr("ems.clusters.pull.WITHIN_S", 0.0)
    claim = claimed(far)
    left(far, tmp_path, claim, large=bytes(range(256)) * 10)
    far.mailbox.release(claim, Outcome(State.SUCCEEDED, 0, 0))
    brought = []
    for _ in range(3):
        assert not now(far.database).state.finished
        brought.append(far.puller().sync())
    assert [(each.bytes, each.batches_left, each.bytes_left) for each in brought] == [
        (1000, 1, 1560),
        (1000, 1, 560),
        (560, 0, 0),
    ]
    assert now(far.database).state is State.SUCCEEDED
    assert fetched(far, tmp_path) == {"large": bytes(range(256)) * 10}
    assert not list((far.lab.work_dir / "pulled").glob("*.files"))


def test_a_part_that_was_torn_here_is_fetched_again(far, tmp_path):
    claim = claimed(far)
    left(far, tmp_path, claim, a=b"whole and right")
    parts = far.lab.work_dir / f"pulled/{ID}.files"
    parts.mkdir(parents=True)
    (parts / hashlib.sha256(b"whole and right").hexdigest()).write_bytes(b"whole and ROT")
    far.pull.sync()
    assert fetched(far, tmp_path) == {"a": b"whole and right"}


def test_a_command_that_is_cut_before_it_confirms_doubles_nothing(far, tmp_path):
    claim = claimed(far)
    left(far, tmp_path, claim, a=b"one")

    def cut(question):
        if "files" in question:
            raise Unreachable("cut", "")

    far.on_the_way = cut
    with pytest.raises(Unreachable):
        far.pull.sync()
    assert remains(far) == [f"{1:06d}-{1:08d}.json", hashlib.sha256(b"one").hexdigest()]
    far.on_the_way = lambda question: None
    far.puller().sync()
    assert fetched(far, tmp_path) == {"a": b"one"} and remains(far) == []


def test_a_content_that_is_recorded_again_while_it_is_confirmed_stays(far, tmp_path, monkeypatch):
    """Its second list is written while the first one is removed: it holds, or whoever writes it tries again."""
    claim = claimed(far)
    left(far, tmp_path, claim, a=b"one")
    removed = mailbox_files.Files._remove

    def meanwhile(self, due):
        monkeypatch.setattr(mailbox_files.Files, "_remove", removed)
        left(far, tmp_path, claim, b=b"one")  # the content is there as yet
        removed(self, due)

    monkeypatch.setattr(mailbox_files.Files, "_remove", meanwhile)
    far.pull.sync()
    assert fetched(far, tmp_path) == {"a": b"one", "b": b"one"} and remains(far) == []


def test_what_is_recorded_and_was_removed_meanwhile_is_refused_for_now(far, tmp_path):
    claim = claimed(far)
    with pytest.raises(DatabaseUnavailable):
        far.mailbox.put_outputs(claim, [Output(0, "a", "ab" * 32, 3, "text/plain")])
    assert remains(far) == []


def test_who_has_lost_its_run_records_nothing(far, tmp_path):
    claim = claimed(far)
    far.mailbox.beat(claim, 0.0, 0, 0)
    claimed(far, agent="b")
    with pytest.raises(FencedOut):
        left(far, tmp_path, claim, a=b"one")


@pytest.mark.parametrize("content", [None, b"onf", b"o"])
def test_what_was_removed_or_damaged_there_is_told(far, tmp_path, content):
    claim = claimed(far)
    stored(far, claim, 0, 1)
    left(far, tmp_path, claim, a=b"one", b=b"two")
    far.mailbox.release(claim, DONE)
    digest = hashlib.sha256(b"one").hexdigest()
    file = far.there / "mailbox/store" / digest[:2] / digest
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    far.pull.sync()
    seen = now(far.database)
    assert (seen.state, seen.rows_stored) == (State.FAILED, 2)
    assert "1 file (a) of EMS_OUTPUT_DIR" in seen.error
    assert fetched(far, tmp_path) == {"b": b"two"}


def test_while_the_lab_s_store_is_away_nothing_is_confirmed_and_rows_come_all_the_same(far, tmp_path, store):
    claim = claimed(far)
    stored(far, claim, 0, 1)
    left(far, tmp_path, claim, a=b"one")
    far.mailbox.release(claim, DONE)
    store.folder.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            far.puller().sync()
    assert now(far.database).rows_stored == 2 and not now(far.database).state.finished
    (tmp_path / "away").rename(store.folder)
    far.puller().sync()
    assert fetched(far, tmp_path) == {"a": b"one"} and now(far.database).state is State.SUCCEEDED
