"""Downloads from a real https server that cuts connections, answers with errors and redirects."""

from __future__ import annotations

import pytest

from ems.base.errors import EmsError, ProvenanceError
from ems.provenance import downloads
from ems.provenance.downloads import download
from tests.web import serving

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def web(tmp_path, monkeypatch):
    with serving(tmp_path) as (found, authority):
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        monkeypatch.setattr(downloads, "FIRST_PAUSE_S", 0.01)
        monkeypatch.setattr(downloads, "MOST_PAUSES", 3)
        found.files["/x.bin"] = CONTENT
        yield found


@pytest.fixture
def part(tmp_path):
    return tmp_path / "x.part"


def got(web, part, path="/x.bin"):
    told = []
    download(web.url(path), part, lambda done, total: told.append((done, total)))
    return told


def refused(web, part, path="/x.bin"):
    with pytest.raises(ProvenanceError) as caught:
        got(web, part, path)
    return str(caught.value)


def test_a_file_arrives_whole_and_its_progress_is_told(web, part):
    told = got(web, part)
    assert part.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and told == sorted(told)


def test_a_connection_cut_in_the_middle_goes_on_where_it_was(web, part):
    web.cut_after = [300_000, 0, 100_000, 0, 5, 0]
    got(web, part)
    assert part.read_bytes() == CONTENT
    starts = [300_000, 300_000, 400_000, 400_000, 400_005, 400_005]
    assert web.asked == [("/x.bin", None), *(("/x.bin", f"bytes={start}-") for start in starts)]


OTHER = CONTENT[::-1] + b"longer"


@pytest.mark.parametrize("heeds", [True, False])
def test_a_file_that_changes_between_two_requests_is_begun_anew(web, part, heeds):
    web.heeds_tags, web.cut_after, web.changes = heeds, [300_000, 200_000], [OTHER]
    got(web, part)
    assert part.read_bytes() == OTHER


def test_without_tags_it_is_told_that_pieces_were_joined(web, part):
    assert download(web.url("/x.bin"), part, lambda *_: None) is False
    part.unlink()
    web.tags, web.cut_after, web.changes = False, [300_000], [OTHER]
    assert download(web.url("/x.bin"), part, lambda *_: None) is True
    assert part.read_bytes() not in {CONTENT, OTHER}
    assert download(web.url("/x.bin"), part, lambda *_: None) is True  # whole already, by an earlier request


def test_an_earlier_part_is_completed_and_a_whole_one_left_as_it_is(web, part):
    part.write_bytes(CONTENT[:1000])
    got(web, part)
    assert part.read_bytes() == CONTENT and web.asked == [("/x.bin", "bytes=1000-")]
    got(web, part)
    assert part.read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_anew(web, part):
    web.ranges, web.cut_after = False, [1000]
    got(web, part)
    assert part.read_bytes() == CONTENT and len(web.asked) == 2


def test_a_server_in_trouble_is_asked_again_but_not_for_ever(web, part):
    web.failures = [500, 503]
    got(web, part)
    assert part.read_bytes() == CONTENT and len(web.asked) == 3
    part.unlink()
    web.failures = [500] * 10
    assert "HTTP Error 500" in refused(web, part) and len(web.asked) == 7


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_will_not_change_is_asked_once(web, part, status):
    web.failures = [status]
    said = refused(web, part)
    assert f"{web.url('/x.bin')} could not be obtained: HTTP Error {status}" in said and len(web.asked) == 1


def test_redirects_are_followed_but_not_away_from_https(web, part):
    web.redirects = {
        "/a": web.url("/x.bin"),
        "/b": "http://user:word@127.0.0.1:9/x?token=word",
        "/c": "file:///etc/hosts",
    }
    got(web, part, "/a")
    assert part.read_bytes() == CONTENT
    said = refused(web, part, "/b")
    assert "leads on to http://127.0.0.1: allowed is https" in said and "word" not in said
    refused(web, part, "/c")
    assert part.read_bytes() == CONTENT


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(web, part, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    assert "CERTIFICATE_VERIFY_FAILED" in refused(web, part) and web.asked == [] and not part.exists()


def test_a_server_that_is_not_there_is_an_error_that_names_it(web, part):
    web.port = 9
    assert "https://127.0.0.1:9/x.bin could not be obtained" in refused(web, part)


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_network(web, tmp_path):
    with pytest.raises(EmsError, match=r"nosuch/x.part cannot be written: No such file.*\nFree some space"):
        got(web, tmp_path / "nosuch" / "x.part")
    assert len(web.asked) == 1
