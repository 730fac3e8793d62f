"""Results files that cannot be read: the error names file, line and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from ems.node.job.results_file import ResultsError
from ems.node.job.results_reader import ResultsReader
from tests.node.test_results_reader import append, batches


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("a.csv", "x,y\n1,2\n1,2,3\n", r"a\.csv:3: 3 fields, where the header has 2"),
        ("a.csv", 'x,y\n"a\nb",2\n1\n', r"a\.csv:4: 1 fields"),
        ("a.csv", "x,x\n", r"a\.csv:1: the header names 'x' twice"),
        ("a.csv", '"","x"\n1,2\n', r"a\.csv:1: column 1 of the header has no name(.|\n)*row\.names = FALSE"),
        ("a.csv", b"x\n1\n\xff\n", r"a\.csv:3: b'\\xff' is not UTF-8"),
        ("a.csv", 'x\n1\n"open\n', r"a\.csv:3: unexpected end of data"),
        (
            "a.csv",
            "x\n1\n2\nx\n",
            r'a\.csv:4: column .x. is of type number, and "x" is not(.|\n)*\{x: text\}(.|\n)*JSON-lines',
        ),
        ("a.csv", 'x\n1\n"2"\n', r"a\.csv:3: column 'x' is of type number, and .*2.* is not"),
        ("a.csv", "x\n1\n02\n", r'a\.csv:3: column .x. is of type number, and "02" is not'),
        ("a.csv", "x\n1e400\n", r'a\.csv:2: column .x. is of type number, and "1e400" is not'),
        ("a.csv", "x\nNA\nabc\n", r'a\.csv:3: column .x. began with NA as null, but is text without quotes: "abc"'),
        ("a.csv", "x\ntrue\n1\n", r'a\.csv:3: column .x. is of type boolean, and "1" is not'),
        ("a.csv", f"x\n{2**64 - 1}\n", r"a\.csv:2: column 'x': 18446744073709551615 has more than 64 bits"),
        ("a.csv", f"x\n{2**53 + 1}\n0.5\n", r"a\.csv:3: column 'x' has integers that are not exact doubles, and 0\.5"),
        ("a.csv", f"x\n0.5\n{2**53 + 1}\n", r"a\.csv:3: .* float, and 9007199254740993 is not an exact double"),
        ("a.csv", "1,2.5,-3\n4,5,6\n", r"a\.csv:1: the header has numbers: 1, 2\.5, -3"),
        ("a.csv", "adam,0.1,5\nsgd,0.2,6\n", r"a\.csv:1: the header has numbers: 0\.1, 5(.|\n)*in quotes"),
        ("a.csv", "x;y\n1;2\n", r"a\.csv:1: the header is one column with ';' in its name(.|\n)*write\.csv2"),
        ("a.csv", "x\ty\n1\t2\n", r"a\.csv:1: the header is one column with '\\t' in its name"),
        ("a.csv", 'x\n"a"b\n', r"a\.csv:2: .*expected after"),
        ("a.jsonl", '{"x": 1}\n{"x": [1]}\n', r"a\.jsonl:2: 'x' is a nested value"),
        ("a.jsonl", '{"x": {"y": 1}}\n', r"a\.jsonl:1: 'x' is a nested value"),
        ("a.jsonl", '{"x": 1}\n\n{"x": "1"}\n', r'a\.jsonl:3: column .x. is of type integer, and "1" is not'),
        ("a.jsonl", '{"x": true}\n{"x": 1}\n', r"a\.jsonl:2: column 'x' is of type boolean, and 1 is not"),
        ("a.jsonl", f'{{"x": {10**400}}}\n', r"a\.jsonl:1: column 'x': a whole number of more than 100 digits has"),
        ("a.jsonl", '{"x": Infinity, "y": -1e400}\n', r"a\.jsonl:1: not a JSON object: -1e400 is beyond all doubles"),
        ("a.jsonl", '{"x": 1\n', r"a\.jsonl:1: not a JSON object"),
        ("a.jsonl", "[" * 100_000, r"a\.jsonl:1: not a JSON object"),
        ("a.jsonl", '{"x": 1}\n{"x": 1, "y": 2, "x": 3}\n', r"a\.jsonl:2: not a JSON object: 'x' comes twice"),
        ("a.jsonl", "[1]\n", r"a\.jsonl:1: a JSON list, not an object"),
        ("a.jsonl", '{"x": "\\ud800"}\n', r"a\.jsonl:1: column 'x': .* is not Unicode"),
        ("a.parquet", b"PAR1 and then nothing", r"a\.parquet has no Parquet footer"),
        ("a.parquet", b"PAR1 no footer but \x01\0\0\0PAR1", r"a\.parquet cannot be read as Parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: str | bytes, problem: str) -> None:
    append(tmp_path / name, data)
    with pytest.raises(ResultsError, match=problem):
        list(batches(ResultsReader(tmp_path)))


@pytest.mark.parametrize("after", ["x\n1\n", "x\n9\n8\n7\n", "x\n9\n8\n7\n6\n5\n"])
def test_a_rewritten_file_is_refused(tmp_path: Path, after: str) -> None:
    reader, path = ResultsReader(tmp_path), tmp_path / "a.csv"
    append(path, "x\n1\n2\n3\n")
    reader.poll()
    path.write_text(after)
    with pytest.raises(ResultsError, match=r"a\.csv was shortened or rewritten after 4 lines"):
        reader.poll()


def test_a_removed_or_replaced_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    append(path, "x\n1\n")
    replaced, removed = ResultsReader(tmp_path), ResultsReader(tmp_path)
    assert replaced.poll() and removed.poll()
    append(tmp_path / "b", "x\n1\n2\n")
    (tmp_path / "b").replace(path)
    with pytest.raises(ResultsError, match="shortened or rewritten"):
        replaced.poll()
    path.unlink()
    with pytest.raises(ResultsError, match="removed after 2 lines"):
        removed.poll()
