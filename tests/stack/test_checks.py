from __future__ import annotations

import math
import time

import pytest

from ems.base.messages import nearest
from ems.stack import checks


@pytest.mark.parametrize(
    "value, shown",
    [
        *[(None, "empty (null)"), (True, "true"), (3, "3"), (0.1, "0.1"), (math.nan, "nan"), ("a", '"a"')],
        *[("é", '"é"'), ("a\x1b", '"a\\u001b"'), ("x" * 100, '"' + "x" * 57 + '..."'), ({"a": 1}, "a mapping of 1")],
        *[([1, 2], "a list of 2"), (10**101, "a whole number of more than 100 digits")],
        *[(checks.UnquotedDate("2020-01-01"), "the date 2020-01-01 without quotes")],
    ],
)
def test_values_are_shown_short_and_printable(value, shown):
    assert checks.show(value) == shown


def test_a_number_that_python_cannot_print_is_shown():
    assert checks.show(10**5000) == "a whole number of more than 100 digits"


def test_nearest_lists_what_there_is():
    assert nearest("projct", ["project", "funding"]) == "did you mean project? allowed are funding, project"
    assert nearest("x", ["b", "a"]) == "allowed are a, b"
    assert nearest("x", []) == "there is none yet"
    assert nearest("x", ["a\nb"]) == 'allowed are "a\\nb"'


def test_nearest_stays_short_and_quick_among_many():
    start = time.process_time()
    said = nearest("name-7777x" * 1000, [f"name-{number}" for number in range(100_000)])
    assert time.process_time() - start < 5
    assert said.endswith("and 99970 more")


@pytest.mark.parametrize("value", [1, 1.0, 5])
def test_whole_numbers_are_kept_as_int(value):
    kept = checks.number(low=1, high=5, whole=True).check(value)
    assert kept == value
    assert isinstance(kept, int)


def test_bounds_are_in_the_message_and_in_the_schema():
    number = checks.number(low=0, high=10, above=True)
    with pytest.raises(ValueError, match=r"^is 0: allowed is a number above 0, up to 10$"):
        number.check(0)
    assert number.check(10) == 10.0
    assert number.schema == {"type": "number", "exclusiveMinimum": 0, "maximum": 10}
