from __future__ import annotations

from ems.base import cache


def test_the_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("EMS_CACHE_DIR", str(tmp_path))
    assert cache.cache_dir() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("EMS_CACHE_DIR", "~/mine")
    assert cache.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("EMS_CACHE_DIR")
    assert cache.cache_dir().name == "ems" and not (tmp_path / "mine").exists()
