"""Text that programs write as tables, each in its own way."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems.node.job.literals import literal
from ems.node.job.results_file import ResultsError
from tests.node.job.written import columns, reader


@pytest.fixture
def working(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


def read(working: Path, text: str, name: str = "a.csv", **form: object) -> dict[str, list]:
    found = reader(working, files=[name], format=form)
    (working / name).write_text(text)
    return columns(found)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        ("a;b\n1;2,5\n", {"delimiter": ";"}, {"a": [1], "b": ["2,5"]}),
        ('a\tb\n"x\ty"\t1\n', {"delimiter": "\t"}, {"a": ["x\ty"], "b": [1]}),
        ('a|b\n"1|""2"|3\n', {"delimiter": "|"}, {"a": ['1|"2'], "b": [3]}),
        ('a|b\n"one\ntwo"|3\n', {"delimiter": "|"}, {"a": ["one\ntwo"], "b": [3]}),
        ("a b\n 1   2.5\n3\t4\r\n", {"delimiter": " "}, {"a": [1, 3], "b": [2.5, 4.0]}),
        ('a b\n"x y" 2\n"" NA\n', {"delimiter": " "}, {"a": ["x y", ""], "b": [2, None]}),
        ("1,2\n3,4\n", {"header": ["n", "m"]}, {"n": [1, 3], "m": [2, 4]}),
        ('"","n"\n"a",1\n"b",2\n', {}, {"row_names": ["a", "b"], "n": [1, 2]}),  # write.csv
        (",n\n0,1\n1,2\n", {}, {"row_names": [0, 1], "n": [1, 2]}),  # to_csv
        ("n,m\n3,4\n", {"header": ["n", "m"]}, {"n": [3], "m": [4]}),
        ("# made by me\n\n# n m\n1 2\n", {"delimiter": " "}, {"n": [1], "m": [2]}),
        ("# n m\n1 2\n", {"delimiter": " ", "header": ["a", "b"]}, {"a": [1], "b": [2]}),
        ("colour,n\n#ff0000,1\n", {}, {"colour": ["#ff0000"], "n": [1]}),
    ],
)
def test_tables_of_text(working: Path, text: str, form: dict, expected: dict) -> None:
    assert read(working, text, **form) == expected


def test_what_ends_with_tsv_has_tabs(working: Path) -> None:
    assert read(working, "a\tb\n1\t2\n", "a.tsv") == {"a": [1], "b": [2]}


@pytest.mark.parametrize(
    ("text", "form", "problem"),
    [
        ("1,2\n", {}, r"a\.csv:1: the header has numbers: 1, 2\.\n.*format: \{header: \[c1, c2\]\}"),
        ("adam,1\n", {}, r"a\.csv:1: the header has numbers: 1\.\n.*format: \{header: \[c1, c2\]\}.*in quotes"),
        ("a;b\n", {}, r'a\.csv:1: .*with \';\' in its name\.\n.*delimiter: ";"\}'),
        ("0.5  1\n", {}, r'a\.csv:1: .*format: \{delimiter: " ", header: \[c1, c2\]\}'.replace(": .*", ":(.|\n)*")),
        ("a b\n1 2 3\n", {"delimiter": " "}, r"a\.csv:2: 3 fields, where the header has 2"),
        ("n,m\n1,2\n3\n", {"header": ["n", "m"]}, r"a\.csv:3: 1 fields, where .*header: …"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_the_fix(working: Path, text: str, form: dict, problem: str) -> None:
    with pytest.raises(ResultsError, match=problem):
        read(working, text, **form)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("(1, 2, 0.5)", "tuple"),
        ("[1, 2]", "list"),
        ("{'a': 1}", "dict"),
        ("(10, np.float64(0.5), np.int64(3))", "tuple"),
        ("(1, nan, -inf)", "tuple"),
        ("[1. 2.5 3. ]", "array"),
        ("('a', True, None)", "tuple"),
        ("{1, 2}", "set"),
        ("(x)", ""),
        ("(1", ""),
        ("(a),(b)", ""),
        ("", ""),
        ("(", ""),
        ("[a b]", ""),
        ('{"a": 1}', "dict"),
    ],
)
def test_literals_of_python_are_told_from_rows(line: str, kind: str) -> None:
    assert literal(line) == kind


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_whatever_python_prints_of_a_list_is_one(value: object) -> None:
    assert literal(repr([value, 1])) in {"list", "array"} or "inf" in repr(value)


@pytest.mark.parametrize(
    ("text", "form", "problem"),
    [
        ("(1, 2, 0.5)\n", {}, r'a\.csv:1: a tuple of Python, .*\.\n.*print\(\*row, sep=","\).*csv\.writer'),
        ("n,m\n1,2\n[1, 2]\n", {}, r"a\.csv:3: a list of Python"),
        ("(1, 2)\n", {"delimiter": " "}, r"print\(\*row\)"),
        ("(1, 2)\n", {"delimiter": "\t"}, r'sep="\\t"'),
        ("{'a': 1}\n", {}, r"a dict of Python(.|\n)*json\.dumps"),
    ],
)
def test_literals_of_python_are_refused_with_the_line_and_the_fix(
    working: Path, text: str, form: dict, problem: str
) -> None:
    with pytest.raises(ResultsError, match=problem):
        read(working, text, **form)


def test_literals_of_python_are_not_json(working: Path) -> None:
    with pytest.raises(ResultsError, match=r"a\.jsonl:2: a dict of Python(.|\n)*json\.dumps"):
        read(working, "{\"a\": 1}\n{'a': 1}\n", "a.jsonl")


def test_numpy_savetxt_is_read_exactly(working: Path) -> None:
    values = np.random.default_rng(1).normal(size=(50, 3)) * 1e300
    found = reader(working, files=["a.txt"], format={"type": "csv", "delimiter": " "})
    np.savetxt(working / "a.txt", values, fmt="%.17g", header="x y z")
    assert np.array_equal(np.array([*columns(found).values()]).T, values)


def run(working: Path, *command: str) -> None:
    subprocess.run(command, cwd=working, check=True, timeout=120, capture_output=True)


def test_base_r_writes_tables_and_data_frames(working: Path) -> None:
    code = """
    d <- data.frame(n = c(1L, NA), x = c(0.1, NA), s = c("a b", NA), b = c(TRUE, FALSE))
    write.csv(d, "a.csv", row.names = FALSE); write.table(d, "b.txt", row.names = FALSE)
    write.csv2(d, "c.csv", row.names = FALSE)
    """
    expected = {"n": [1, None], "x": [0.1, None], "s": ["a b", None], "b": [True, False]}
    blank = {"type": "csv", "delimiter": " "}
    readers = [reader(working, files=["a.csv"]), reader(working, files=["b.txt"], format=blank)]
    german = reader(working, files=["c.csv"])
    run(working, "Rscript", "-e", code)
    assert [columns(found) for found in readers] == [expected, expected]
    with pytest.raises(ResultsError, match='delimiter: ";"'):
        columns(german)


def test_octave_writes_tables(working: Path) -> None:
    found = reader(working, files=["a.csv", "b.txt"], format={"type": "csv", "delimiter": " ", "header": ["x", "y"]})
    code = "M = [1 0.5; 2 pi]; save -ascii -double b.txt M; f = fopen('a.csv', 'w'); fprintf(f, '%d %.17g\\n', M');"
    run(working, "octave-cli", "--quiet", "--eval", code)
    read_back = columns(found)
    assert read_back["x"] == [1, 2, 1, 2]
    assert read_back["y"][:2] == [0.5, np.pi]
