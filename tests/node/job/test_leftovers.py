"""What a job left: which files that are, where they go, and what is said of them."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from ems.node.agent import advice, leftovers
from ems.node.agent.leftovers import FileLeft
from ems.node.agent.tidying import shown, size
from ems.node.agent.unpack import unpack


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """With unpacked code: two files, a link, a program."""
    made = tmp_path / "aside.zip"
    link = zipfile.ZipInfo("code/link")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("code/job.py", "print(1)")
        archive.writestr("code/data/input.csv", "n\n1\n")
        archive.writestr(link, "job.py")
    bundle = made.rename(tmp_path / f"{hashlib.sha256(made.read_bytes()).hexdigest()}.zip")
    started(tmp_path / "run", bundle, 1)
    return tmp_path / "run"


def started(run_dir: Path, bundle: Path, attempt: int) -> None:
    run_dir.mkdir(exist_ok=True)
    unpack(bundle, run_dir / "code")
    leftovers.begin(run_dir, attempt)
    (run_dir / "results").mkdir(exist_ok=True)


def again(run_dir: Path, attempt: int) -> None:
    (bundle,) = run_dir.parent.glob("*.zip")
    started(run_dir, bundle, attempt)


def write(path: Path, content: str = "x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def left(run_dir: Path) -> list[str]:
    root = run_dir / "left"
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir())


def test_new_and_changed_files_are_moved_and_nothing_else(run_dir: Path) -> None:
    working = run_dir / "code/code"
    for name in ("plot.png", "a b/ü.txt", "__pycache__/job.pyc", ".ipynb_checkpoints/x", "m.pyc", "rows.csv"):
        write(working / name)
    write(working / "job.py", "print(2)")  # of the same size
    os.utime(working / "data/input.csv", (0, 0))
    (working / "new").symlink_to("/nowhere")
    (working / "link").unlink()
    (working / "link").symlink_to("data")
    os.mkfifo(working / "pipe")
    leftovers.keep(run_dir, {working / "rows.csv"})
    names = ["a b/ü.txt", "job.py", "link", "new", "pipe", "plot.png"]
    assert left(run_dir) == [f"attempt-1/{name}" for name in names]
    assert (working / "data/input.csv").exists() and (working / "rows.csv").exists()
    assert sorted((file["name"], file["attempt"]) for file in leftovers.listed(run_dir)) == [
        (name, 1) for name in names
    ]
    leftovers.keep(run_dir)  # by a teardown
    assert len(left(run_dir)) == len(names)


def test_of_the_results_folder_what_was_not_read_is_left(run_dir: Path) -> None:
    results = run_dir / "results"
    for name in ("a.csv", "b.csv", "fit.rds", "p.parquet/_SUCCESS", "p.parquet/part.0.parquet", "sub/x.csv"):
        write(results / name)
    leftovers.keep(run_dir, {results / "a.csv", results / "p.parquet/part.0.parquet"})
    assert left(run_dir) == [f"attempt-1/EMS_RESULTS_DIR/{name}" for name in ("b.csv", "fit.rds", "sub/x.csv")]


def test_of_a_run_whose_agent_is_gone_nothing_in_the_working_directory_counts_as_read(run_dir: Path) -> None:
    for path in (run_dir / "code/code/rows.csv", run_dir / "results/a.csv", run_dir / "results/fit.rds"):
        write(path)
    leftovers.keep(run_dir)
    assert left(run_dir) == ["attempt-1/EMS_RESULTS_DIR/fit.rds", "attempt-1/rows.csv"]


def test_each_attempt_has_a_folder_of_its_own(run_dir: Path) -> None:
    for attempt in (1, 2, 2, 10):
        again(run_dir, attempt)
        write(run_dir / "code/code/plot.png", "x" * attempt)
        leftovers.keep(run_dir, set())
    assert left(run_dir) == [f"attempt-{name}/plot.png" for name in ("1", "10", "2-1", "2")]
    assert [(file["attempt"], file["bytes"]) for file in leftovers.listed(run_dir)] == [
        (1, 1),
        (2, 2),
        (2, 2),
        (10, 10),
    ]


def test_folders_that_a_job_closed_are_looked_into(run_dir: Path) -> None:
    closed = run_dir / "code/code/closed"
    write(closed / "plot.png")
    closed.chmod(0)
    leftovers.keep(run_dir, set())
    assert left(run_dir) == ["attempt-1/closed/plot.png"]


def test_what_an_older_version_unpacked_is_left_alone(run_dir: Path) -> None:
    write(run_dir / "code/code/plot.png")
    (run_dir / "code/attempt").unlink()
    leftovers.keep(run_dir)
    assert left(run_dir) == [] and (run_dir / "code/code/plot.png").exists()


def test_many_files_are_listed_as_folders_and_very_many_in_sum(run_dir: Path) -> None:
    for number in range(120):
        write(run_dir / f"code/code/frames/{number}.png")
    write(run_dir / "code/code/a.txt", "xyz")
    leftovers.keep(run_dir, set())
    assert leftovers.listed(run_dir) == [
        FileLeft(name="a.txt", bytes=3, files=1, attempt=1),
        FileLeft(name="frames/", bytes=120, files=120, attempt=1),
    ]
    again(run_dir, 2)
    for number in range(300):
        write(run_dir / f"code/code/{number}.txt", "x" * (1 + number % 2))
    leftovers.keep(run_dir, set())
    found = leftovers.listed(run_dir)
    assert sum(file["files"] for file in found) == 421 and len(found) == 52
    assert found[-1] == FileLeft(name="…", bytes=352, files=251, attempt=2)
    assert len(json.dumps(found)) < 10_000


def test_a_name_that_is_not_unicode_is_listed(run_dir: Path) -> None:
    (run_dir / "code/code" / os.fsdecode(b"a\xff.txt")).write_text("x")
    leftovers.keep(run_dir, set())
    assert leftovers.listed(run_dir)[0]["name"] == "a\ufffd.txt"


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345, "12 kB"), (999_600, "1.0 MB"),
     (3_400_000_000, "3.4 GB"), (5 * 10**15, "5,000 TB")],
)  # fmt: skip
def test_sizes_are_short(number: int, expected: str) -> None:
    assert size(number) == expected


def test_a_file_is_shown_with_its_size() -> None:
    assert shown(FileLeft(name="out/a.png", bytes=1500, files=1, attempt=1)) == "out/a.png (1.5 kB)"
    assert shown(FileLeft(name="a\n/", bytes=1500, files=12, attempt=1)) == '"a\\n/" (12 files, 1.5 kB)'


def advised(folder: Path, files: dict[str, str]) -> list[str]:
    for name, content in files.items():
        write(folder / name, content)
    found = [FileLeft(name=name, bytes=len(content), files=1, attempt=1) for name, content in files.items()]
    return [line.strip() for line in advice.told(folder, found, "t")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"out/a.csv": "n,m\n1,2\n", "out/b.csv": "n,m\n3,4\n", "plot.png": "x"}, ["files: [out/*.csv]"]),
        ({"final.txt": "1 2\n3 4\n"},
         ["files: [final.txt]", 'format: {type: csv, delimiter: " ", header: [c1, c2]}']),
        ({"a.dat": "# n m\n1 2\n"}, ["files: [a.dat]", 'format: {type: csv, delimiter: " "}']),
        ({"a.txt": "n;m\n1;2\n"}, ["files: [a.txt]", 'format: {type: csv, delimiter: ";"}']),
        ({"a.csv": "n\tm\n1\t2\n"}, ["files: [a.csv]", 'format: {delimiter: "\\t"}']),
        ({"a.txt": '{"n": 1}\n{"n": 2}\n'}, ["files: [a.txt]", "format: {type: jsonl}"]),
        ({"a.npz": "PK", "b.rds": "x"}, ["files: [a.npz, b.rds]"]),
        ({"1.csv": "n\n1\n", "2.csv": "n\n2\n"}, ['files: ["*.csv"]']),
        ({"EMS_RESULTS_DIR/a.rds": "x"}, ['files: ["{results}/a.rds"]']),
    ],
)  # fmt: skip
def test_files_that_may_be_rows_are_declared(tmp_path: Path, files: dict[str, str], expected: list[str]) -> None:
    lines = advised(tmp_path, files)
    assert lines[1:3] == ["results:", "table: t"] and lines[3:-1] == expected


@pytest.mark.parametrize(
    "files", [{}, {"plot.png": "x"}, {"log.txt": "it went well\nand ended so\n"}, {"a.txt": "\0\1"}, {"a.txt": ""}]
)
def test_where_nothing_may_be_rows_it_can_be_said(tmp_path: Path, files: dict[str, str]) -> None:
    assert advised(tmp_path, files) == ["A job without rows says so in its stack file, as `results: none`."]


def test_what_python_printed_by_accident_is_told(tmp_path: Path) -> None:
    first, second = advised(tmp_path, {"final_results.txt": "(1, 2, 0.5)\n(1, 3, 0.25)\n"})
    assert first.startswith("final_results.txt has a tuple of Python in each line.") and "print(*row" in first
    assert "results: none" in second


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("n,loss\n1,0.5\n2,0.25\n", ["stdout: csv"]),
        ("1 0.5\n2 0.25\n", ["stdout: csv", 'format: {delimiter: " ", header: [c1, c2]}']),
        ('{"n": 1}\n{"n": 2}\n', ["stdout: jsonl"]),
    ],
)
def test_rows_that_were_printed_are_declared(tmp_path: Path, printed: str, expected: list[str]) -> None:
    lines = [line.strip() for line in advice.told(tmp_path, [], "t", printed)]
    assert lines[1:3] == ["results:", "table: t"] and lines[3:-1] == expected


@pytest.mark.parametrize("printed", ["", "n,m\n", "at step 1, all is well\nat step 2, it is not\n", "it\nwent\nwell\n"])
def test_what_was_printed_for_people_is_not_taken_for_rows(tmp_path: Path, printed: str) -> None:
    assert advice.told(tmp_path, [], "t", printed) == [
        "A job without rows says so in its stack file, as `results: none`."
    ]


def test_what_python_printed_of_tuples_is_told_of_the_output_too(tmp_path: Path) -> None:
    first, _ = advice.told(tmp_path, [], "t", "(1, 2, 0.5)\n")
    assert first.startswith("Standard output has a tuple of Python in each line.")
