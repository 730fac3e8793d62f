"""Conditions as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.base.errors import UserError
from ems.databases import Condition
from ems.views.where import parse


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("theta >= 1.5", ("theta", ">=", 1.5)),
        ("theta>=1.5", ("theta", ">=", 1.5)),
        ("  m = 60  ", ("m", "=", 60)),
        ("m != -60", ("m", "!=", -60)),
        ("x < 1e-3", ("x", "<", 1e-3)),
        ("x<=.5", ("x", "<=", 0.5)),
        ("x > -inf", ("x", ">", float("-inf"))),
        ("""label = "a b" """, ("label", "=", "a b")),
        ("""label = 'it''s "so"'""", ("label", "=", """it's "so\"""")),
        ("""label = "" """, ("label", "=", "")),
        ("""label = "true" """, ("label", "=", "true")),
        ("ok = TRUE", ("ok", "=", True)),
        ("ok != false", ("ok", "!=", False)),
        ("x is null", ("x", "=", None)),
        ("x IS  NOT null", ("x", "!=", None)),
        ("größe = 1", ("größe", "=", 1)),
        ("is is null", ("is", "=", None)),
        ("""'with space' = 1""", ("with space", "=", 1)),
        ('"a ""b"" >=" is null', ('a "b" >=', "=", None)),
    ],
)
def test_what_is_a_condition(text, condition):
    assert parse(text) == Condition(*condition)
    assert type(parse(text).value) is type(condition[2])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "x =",
        "= 1",
        "x == 1",
        "x => 1",
        "x <> 1",
        "x = y",
        "x = nan",
        "x = 1_000",
        "x = 1 and y = 2",
        "x = 1 OR 1 = 1",
        "x = 1; DROP TABLE y",
        'x = "a',
        "x = 'a' 'b'",
        "x is nothing",
        "x is not",
        "x < null",
        "x = null",
        "x != null",
        "x in (1, 2)",
        "x y = 1",
        "1 < x < 2",
    ],
)
def test_what_is_none(text):
    with pytest.raises(UserError, match=r"(?s)^['\"].*COLUMN OPERATOR VALUE.*COLUMN is not null"):
        parse(text)


@given(st.text(min_size=1).filter(lambda text: "'" not in text), st.text())
def test_any_name_and_any_text_in_quotes(name, value):
    quoted = value.replace('"', '""')
    assert parse(f"""'{name}' != "{quoted}" """) == Condition(name, "!=", value)
