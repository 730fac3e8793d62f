"""What may stand after `--pilot`."""

from __future__ import annotations

import pytest

from ems.base.errors import UserError
from ems.engine.pilot import Pilot


@pytest.mark.parametrize("sample", ["", " ", "0", "-3", "0%", "101%", "%", "1.5", "nan%", "many"])
def test_what_is_no_sample_is_refused_with_what_is_allowed(sample: str) -> None:
    with pytest.raises(UserError, match="--pilot is ") as caught:
        Pilot.of(sample)
    assert repr(sample) in caught.value.message and "--pilot 200" in caught.value.hint


@pytest.mark.parametrize(("sample", "size"), [("1%", 3), ("0.001%", 1), ("200", 200), ("1000", 250), ("100%", 250)])
def test_a_number_or_a_share_gives_one_point_at_least_and_all_at_most(sample: str, size: int) -> None:
    assert Pilot.of(sample).size(250) == size
