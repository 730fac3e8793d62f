from __future__ import annotations

from ems.databases.projects import parents_first


def test_each_project_comes_after_its_parent():
    assert parents_first({}) == []
    parents = {"c": "b", "d": None, "b": "a", "e": "a", "a": None}
    order = parents_first(parents)
    assert sorted(order) == sorted(parents)
    assert all(parent is None or order.index(parent) < order.index(id) for id, parent in parents.items())
