"""A lab moves into DynamoDB and back, and stays the same."""

from __future__ import annotations

from contextlib import ExitStack, closing

from ems import copying
from ems.databases import connect
from tests.test_copying import everything, full, silent

__all__ = ["full"]


def test_to_dynamodb_and_back_all_stays_the_same(full, dynamodb_url, tmp_path):
    with ExitStack() as stack:
        there = stack.enter_context(closing(connect(dynamodb_url, tmp_path)))
        back = stack.enter_context(closing(connect("sqlite:///back.db", tmp_path)))
        for _ in range(2):
            assert all(each.same for each in copying.copy(full, there, silent))
        assert everything(there) == everything(full)
        assert all(each.same for each in copying.copy(there, back, silent))
        assert everything(back) == everything(full)
        assert [list(there.origins(id)) for id in ("first", "second")] == [
            list(full.origins(id)) for id in ("first", "second")
        ]
        assert there.experiments() == full.experiments()
        assert list(there.points("second")) == list(full.points("second"))
