"""Results files of a program's own names: which files, when, and what they may not be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ems.node.job.declared import Declared
from ems.node.job.own_files import begin
from ems.node.job.results_file import ResultsError
from tests.node.job.written import columns, joined, reader, to_the_end


@pytest.fixture
def working(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


def write(path: Path, text: str, mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(mode) as file:
        file.write(text)


def test_files_are_read_as_patterns_name_them_while_they_grow(working: Path) -> None:
    found = reader(working, files=["final.txt", "out/*.csv", "deep/**/*.jsonl"], format={"type": "csv"})
    write(working / "final.txt", "n,x\n1,0.5\n2,")
    write(working / "other.csv", "n\n9\n")
    first = found.poll()
    assert first and joined(iter([first])) == {"n": [1], "x": [0.5]}
    write(working / "final.txt", "1.5", "a")
    write(working / "out/b.csv", "n\n4\n")
    write(working / "out/a.csv", "n\n3\n")
    write(working / "deep/er/c.jsonl", '{"n": 5}')
    assert columns(found) == {"n": [5, 2, 3, 4], "x": [None, 1.5, None, None]}
    assert found.missing() == []
    assert working / "other.csv" not in found.read()


def test_a_pattern_that_matches_nothing_is_known(working: Path) -> None:
    found = reader(working, files=["out/*.csv", "a.csv"])
    write(working / "a.csv", "n\n1\n")
    assert columns(found) == {"n": [1]}
    assert found.missing() == ["out/*.csv"]


def test_what_the_code_has_under_such_names_is_not_a_result(working: Path) -> None:
    """An old file of results in the repository, to which the program appends, and an input that a pattern matches."""
    write(working / "final.csv", "n\n-1\n")
    write(working / "input.csv", "n\n-2\n")
    said = {"files": ["final.csv", "*.csv"]}
    assert begin(Declared.of(said), working) == ["final.csv"]
    found = reader(working, **said)
    assert found.poll() is None
    write(working / "final.csv", "n\n1\n", "a")
    first = found.poll()
    assert first and joined(iter([first])) == {"n": [1]}
    write(working / "input.csv", "3\n", "a")
    with pytest.raises(ResultsError, match=r"input\.csv was there before the job(.|\n)*without a pattern"):
        columns(found)


def test_a_file_that_is_written_anew_each_time_is_read_once_more_at_the_end(working: Path) -> None:
    """As by numpy.savetxt and DataFrame.to_csv of all rows so far; a shorter first row shows that it is another one."""
    found = reader(working, files=["a.csv", "b.jsonl"])
    write(working / "b.jsonl", '{"n": 100}\n')
    write(working / "a.csv", "n\n10\n20\n")
    seen = found.poll()
    assert seen and joined(iter([seen])) == {"n": [10, 20, 100]}
    write(working / "a.csv", "n\n1\n")
    assert found.poll() is None
    write(working / "a.csv", "n\n1\n2\n3\n")
    assert found.poll() is None
    last = list(to_the_end(found))
    assert last[0].replaces == (0,)
    assert joined(iter(last)) == {"n": [1, 2, 3, 100]}
    assert [row for batch in last for row in batch.rows] == [0, 1, 2, 3]


def test_an_early_line_that_changed_in_place_is_noticed_at_the_end(working: Path) -> None:
    found = reader(working, files=["a.csv"])
    write(working / "a.csv", "n,s\n" + "1,running\n" * 30)
    assert found.poll()
    write(working / "a.csv", "n,s\n2,success\n" + "1,running\n" * 29)
    assert columns(found)["s"] == ["success"] + ["running"] * 29


def test_files_in_the_results_folder_still_may_not_be_rewritten(working: Path) -> None:
    found = reader(working, files=["a.csv"])
    write(working.parent / "results/a.csv", "n\n1\n2\n")
    assert found.poll()
    write(working.parent / "results/a.csv", "n\n3\n")
    with pytest.raises(ResultsError, match="shortened or rewritten"):
        found.poll()


def test_a_pattern_may_name_what_the_results_folder_is_not_read_for(working: Path) -> None:
    found = reader(working, files=["{results}/*.txt", "{results}/a.csv"], format={"type": "csv"})
    write(working.parent / "results/b.txt", "n\n2\n")
    write(working.parent / "results/a.csv", "n\n1\n")
    assert columns(found) == {"n": [1, 2]}
    assert found.missing() == []


def test_very_many_files_are_read_once_each(working: Path) -> None:
    for number in range(500):
        write(working / f"{number:03}/a.csv", f"n\n{number}\n")
    before = {path: path.stat() for path in working.glob("*/a.csv")}
    found = reader(working, files=["**/a.csv"])
    assert columns(found) == {} and found.missing() == ["**/a.csv"]
    for path in before:
        path.rename(path.with_name("b.csv"))
    found = reader(working, files=["**/a.csv"])
    for path in before:
        path.with_name("b.csv").rename(path)
    assert columns(found)["n"] == list(range(500))


def test_a_link_that_leads_out_is_refused(working: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere.csv", "n\n1\n")
    found = reader(working, files=["a.csv"])
    (working / "a.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(ResultsError, match=r"a\.csv leads out of the working directory, to .*elsewhere\.csv"):
        found.poll()


def test_a_folder_is_not_a_file(working: Path) -> None:
    found = reader(working, files=["out"], format={"type": "csv"})
    write(working / "out/a.txt", "n\n1\n")
    assert columns(found) == {"n": [1]}
    found = reader(working, files=["out.parquet"])
    (working / "out.parquet").mkdir()
    assert columns(found) == {}
    assert found.missing() == ["out.parquet"]


def test_columns_are_typed_wherever_the_file_is(working: Path) -> None:
    for said in ({"columns": {"zip": "text"}}, {"format": {"columns": {"zip": "text"}}}):
        found = reader(working, files=["a.csv"], **said)
        write(working / "a.csv", "zip\n1234\n")
        assert columns(found) == {"zip": ["1234"]}
        (working / "a.csv").unlink()


def test_standard_output_is_read_as_it_is_said(working: Path) -> None:
    found = reader(working, stdout="jsonl")
    write(working.parent / "stdout", '{"n": 1}\n{"n"')
    assert found.poll()
    write(working.parent / "stdout", ": 2}\n", "a")
    assert columns(found) == {"n": [2]}
    found = reader(working, stdout="csv")
    with pytest.raises(ResultsError, match="stdout:2: 1 fields, where the header has 2"):
        write(working.parent / "stdout", "n,m\nbeginning\n")
        columns(found)
