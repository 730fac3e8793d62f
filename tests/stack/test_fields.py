from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.stack import fields


def as_go_writes(number: float) -> str:
    """A float in JSON as Go writes it: without an exponent below 1e21."""
    text = repr(number) if number else "0"
    return format(fields.Decimal(text), "f").removesuffix(".0") if 1e-6 <= abs(number) < 1e21 else text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_the_same_parameter_from_the_file_and_from_pulumi_but_for_its_type(number):
    from_file = fields.PARAMETER.check(number)
    from_pulumi = fields.PARAMETER.check(json.loads(as_go_writes(number)))
    assert (from_file, type(from_file)) == (number, float)
    assert float(from_pulumi) == from_file
    assert repr(fields.as_hashed(from_file)) == repr(from_pulumi)


@given(st.integers(-(2**80), 2**80))
def test_a_whole_number_keeps_every_digit_or_is_refused(number):
    try:
        kept = fields.PARAMETER.check(number)
    except ValueError as error:
        assert "more digits than a number can keep" in str(error) and not -(2**63) <= number < 2**63
    else:
        assert kept == number and type(kept) is int


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70) | st.text(max_size=9))
def test_a_kept_parameter_stays_as_it_is(value):
    try:
        kept = fields.PARAMETER.check(value)
    except ValueError as error:
        assert str(error).startswith("is ")
    else:
        assert repr(fields.PARAMETER.check(kept)) == repr(kept)


@pytest.mark.parametrize(
    "kind, good, bad",
    [
        (fields.NAME, "a.b-c_1", "a/b"),
        (fields.COMMIT, "a" * 40, "a" * 39),
        (fields.PATH, "src/a", "/src"),
        (fields.REPOSITORY, "git@host:a", "host/a"),
        (fields.TABLE, "digits_2", "Digits"),
        (fields.VARIABLE, "_A1", "1A"),
    ],
)
def test_the_schema_and_the_check_agree(kind, good, bad):
    assert kind.check(good) == good
    assert re.search(kind.schema["pattern"], good)
    with pytest.raises(ValueError, match=r"^is .*: allowed is "):
        kind.check(bad)
    assert not re.search(kind.schema["pattern"], bad)
