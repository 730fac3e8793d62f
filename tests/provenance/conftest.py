"""Git and cache of a test's own."""

import pytest

from tests.provenance.labs import make_lab


@pytest.fixture
def own_git_and_cache(tmp_path, monkeypatch):
    config = tmp_path / "gitconfig"
    config.write_text("[user]\nname = researcher\nemail = researcher@example.org\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def lab(tmp_path, own_git_and_cache):
    return make_lab(tmp_path / "lab")
