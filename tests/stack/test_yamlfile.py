from __future__ import annotations

import math

import pytest

from ems.base.messages import UnquotedDate
from ems.stack import scalars, yamlfile


@pytest.mark.parametrize(
    "text, value",
    [
        *[("1e-3", 0.001), ("1E3", 1000.0), (".5", 0.5), ("1.", 1.0), ("+1.5e+3", 1500.0), ("-0.5", -0.5)],
        *[("0", 0), ("-7", -7), ("+7", 7), ("1_000", 1000), ("0x1F", 31), ("-0x1f", -31), ("0o17", 15), ("017", 15)],
        *[("0b101", 5), ("089", 89.0), (".inf", math.inf), ("-.INF", -math.inf), ("1e999", "1e999")],
        *[("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("Null", None)],
        *[("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("tRue", "tRue"), ("inf", "inf")],
        *[("2020-01-01", UnquotedDate("2020-01-01")), ("2020-13-01", "2020-13-01"), ("2021-02-29", "2021-02-29")],
        *[("2020-1-2T3:4:5Z", UnquotedDate("2020-1-2T3:4:5Z")), ("2020-12-31", UnquotedDate("2020-12-31"))],
        *[("0000-01-01", UnquotedDate("0000-01-01")), ("12:30", "12:30"), ("1.2.3", "1.2.3"), ("nan", "nan")],
        *[("1" * 40, int("1" * 40)), ("9" * 5000, "9" * 5000), ("_1", "_1"), ("0x", "0x"), ("é", "é"), ("<<", "<<")],
    ],
)
def test_plain_scalars_are_read_as_go_reads_them(text, value):
    found = scalars.scalar(text)
    assert (found, type(found)) == (value, type(value))


def test_nan_and_quoted_scalars(tmp_path):
    assert math.isnan(scalars.scalar(".nan"))
    path = tmp_path / "a.yaml"
    path.write_text("a: '1'\nb: \"true\"\nc: |\n  3\nd: 'null'\n")
    value, lines = yamlfile.read(path)
    assert value == {"a": "1", "b": "true", "c": "3\n", "d": "null"}
    assert lines == {("a",): 1, ("b",): 2, ("c",): 3, ("d",): 5}
