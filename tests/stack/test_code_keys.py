"""`code:` of an experiment: commits, repositories, paths."""

from __future__ import annotations

import pytest

from ems.stack import spec
from ems.stack.models import ExperimentSpec
from tests.stack.specs import EXPERIMENT, HASH, changed, experiment, faults, problem


@pytest.mark.parametrize("commit", ["HEAD", HASH, "1" * 40, "a" * 64])
def test_commits_allowed(commit):
    assert experiment("code/commit", commit).code.commit == commit


def test_hashes_are_kept_in_lower_case():
    assert experiment("code/commit", HASH.upper()).code.commit == HASH


@pytest.mark.parametrize("commit", ["main", HASH[:7], HASH + "0", "head", "v1.0", "x" * 40])
def test_names_and_short_hashes_are_no_commits(commit):
    said = problem("code/commit", commit)
    assert "allowed is HEAD or a full commit hash of 40" in said
    assert f"`git rev-parse {commit}`" in said


def test_the_command_for_a_full_hash_is_safe_to_paste():
    assert "git rev-parse 'a;b'" in problem("code/commit", "a;b")
    assert "git rev-parse NAME" in problem("code/commit", "--all")


@pytest.mark.parametrize("number", [int("1" * 40), 1.2345678901234568e39])
def test_an_all_digit_commit_is_to_be_quoted(number):
    said = problem("code/commit", number)
    assert f"is the number {number}" in said
    assert "quote it" in said


@pytest.mark.parametrize(
    "url",
    [
        *["https://host/a/b.git", "https://host:8443/a", "ssh://git@host/a", "git@host:a/b.git"],
        *["file:///tmp/a b", "/srv/git/a.git"],
    ],
)
def test_repositories_allowed(url):
    data = changed(changed(EXPERIMENT, "code/repo", url), "code/commit", HASH)
    found = spec.parse("experiment", data)
    assert isinstance(found, ExperimentSpec)
    assert found.code.repo == url


@pytest.mark.parametrize(
    "url",
    [
        *["http://host/a", "a/b", "../a", "ext::sh -c x", "--upload-pack=x", "https://host/a?token=x", "ssh://-oX/a"],
        *["https://host", "", "git@host", "https://host/a b"],
    ],
)
def test_repositories_refused(url):
    said = faults("experiment", changed(changed(EXPERIMENT, "code/repo", url), "code/commit", HASH))
    assert "allowed is a URL of https, ssh or file" in said["ems:experiment.code.repo"]


@pytest.mark.parametrize("url", ["https://u:hunter2@host/x", "https://hunter2@host/x", "ssh://u:hunter2@host/x"])
def test_a_password_is_refused_and_not_repeated(url):
    found = faults("experiment", changed(changed(EXPERIMENT, "code/repo", url), "code/commit", HASH))
    assert "password or token" in found["ems:experiment.code.repo"]
    assert "hunter2" not in found["ems:experiment.code.repo"]


def test_another_repository_needs_a_full_hash():
    assert "full commit hash" in problem("code", {"repo": "https://host/a"}, "code.commit")
    assert "full commit hash" in problem("code", {"repo": "https://host/a", "commit": "HEAD"}, "code.commit")


def test_paths_are_kept_in_their_short_form():
    assert experiment("code/paths", ["src/", "./a//b", "data/é.csv"]).code.paths == ("src", "a/b", "data/é.csv")


@pytest.mark.parametrize(
    "path, said",
    [
        *[("/abs", "starts with `/`"), ("a/../b", "has `..`"), ("..", "has `..`"), ("a\nb", "control character")],
        *[('a"b', "a quote"), ("a'b", "a quote"), ("a\\b", "a backslash"), ("a*", "a pattern"), ("a\x00", "control")],
        *[(":(top)", "starts with"), ("-x", "starts with"), ("~/x", "starts with"), (".", "names nothing")],
        *[("", "names nothing"), (3, "is the number 3")],
    ],
)
def test_paths_refused(path, said):
    assert said in problem("code/paths", ["ok", path], "code.paths[1]")


def test_a_path_twice_is_refused_beside_other_faults():
    found = faults("experiment", changed(EXPERIMENT, "code/paths", ["a", "/b", "a/"]))
    assert set(found) == {"ems:experiment.code.paths[1]", "ems:experiment.code.paths[2]"}
    assert "listed before" in found["ems:experiment.code.paths[2]"]
    assert "allowed is a list" in problem("code/paths", "src")
