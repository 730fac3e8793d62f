"""Files that are read as a whole: numpy's npz, R's rds, Parquet."""

from __future__ import annotations

import math
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ems.node.job.results_file import ResultsError
from tests.node.job.written import columns, reader


@pytest.fixture
def working(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


def saved(working: Path, **arrays: Any) -> dict[str, list]:
    found = reader(working, files=["*.npz"])
    np.savez(working / "a.npz", **arrays)
    return columns(found)


def test_arrays_are_columns_and_numbers_stand_in_each_row(working: Path) -> None:
    read = saved(
        working,
        n=np.arange(3, dtype=np.int8),
        x=np.array([0.1, np.nan, np.inf], dtype=np.float64),
        half=np.array([0.5, 1, 2], dtype=np.float16),
        b=np.array([True, False, True]),
        s=np.array(["a", "é", ""]),
        big=np.array([1, 2, 3], dtype=">i4"),
        t=np.array(["2026-01-31", "NaT", "1970-01-01"], dtype="datetime64[D]"),
        seed=7,
    )
    assert math.isnan(read["x"].pop(1))
    assert read == {
        "n": [0, 1, 2],
        "x": [0.1, math.inf],
        "half": [0.5, 1.0, 2.0],
        "b": [True, False, True],
        "s": ["a", "é", ""],
        "big": [1, 2, 3],
        "t": ["2026-01-31", None, "1970-01-01"],
        "seed": [7, 7, 7],
    }


def test_numbers_alone_are_one_row(working: Path) -> None:
    assert saved(working, x=0.5, n=3) == {"x": [0.5], "n": [3]}


def test_every_closed_file_is_read_while_the_job_runs(working: Path) -> None:
    found = reader(working, files=["out-*.npz"])
    np.savez_compressed(working / "out-1.npz", x=np.arange(30_000))
    first = found.poll()
    assert first and len(first) == 10_000
    assert len(columns(found)["x"]) == 20_000
    assert found.read() == {working / "out-1.npz"}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"x": np.arange(3), "y": np.arange(2)}, r"arrays differ in length: 'x' has 3, 'y' has 2(.|\n)*np\.savez"),
        ({"x": np.zeros((2, 3))}, r"'x' has 2 dimensions \(2 × 3\)"),
        ({"x": np.array([1j])}, r"array 'x' is of type complex128"),
        ({"x": np.array([b"a"])}, r"array 'x' is of type \|S1"),
        ({"x": np.array([{}], dtype=object)}, r"it has pickled objects, which may run any code(.|\n)*astype"),
        ({"x": np.array([(1, 2.0)], dtype="i4,f8")}, r"array 'x' is of type"),
    ],
)
def test_what_is_not_one_table_is_refused(working: Path, arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(ResultsError, match=rf"a\.npz cannot be read as npz: {problem}"):
        saved(working, **arrays)


@pytest.mark.parametrize("name", ["a.npz", "a.rds", "a.parquet"])
@pytest.mark.parametrize("cut", [0, 1, 40, 0.5, 0.9])
def test_damaged_files_are_refused_by_name(working: Path, name: str, cut: float) -> None:
    import pandas as pd

    np.savez(working / "a.npz", x=np.random.default_rng(0).random(1000))
    pd.DataFrame({"x": range(1000)}).to_parquet(working / "a.parquet")
    subprocess.run(["Rscript", "-e", f"saveRDS(data.frame(x=runif(1000)), '{working}/a.rds')"], check=True)
    whole = (working / name).read_bytes()
    for file in working.iterdir():
        file.unlink()
    found = reader(working, files=[name])
    (working / name).write_bytes(whole[: int(cut * len(whole)) if isinstance(cut, float) else cut])
    assert name == "a.rds" or found.poll() is None
    with pytest.raises(ResultsError, match=f"{name} (cannot be read as|has no Parquet footer)"):
        columns(found)
    assert found.read() == set()


def test_a_flipped_bit_is_noticed(working: Path) -> None:
    np.savez(working / "b.npz", x=np.arange(1000))
    data = bytearray((working / "b.npz").read_bytes())
    data[4000] ^= 1
    found = reader(working, files=["a.npz"])
    (working / "a.npz").write_bytes(data)
    with pytest.raises(ResultsError, match=r"a\.npz cannot be read as npz: Bad CRC-32"):
        columns(found)


def test_a_lone_array_is_not_a_table(working: Path) -> None:
    found = reader(working, files=["a.npz"])
    with (working / "a.npz").open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(ResultsError, match="one array without a name"):
        columns(found)


def test_nothing_is_unpickled(working: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwned"),)

    with pytest.raises(ResultsError, match="pickled"):
        saved(working, x=np.array([Evil()], dtype=object))
    found = reader(working, files=["p.npz"])
    import pickle

    (working / "p.npz").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ResultsError, match=r"p\.npz cannot be read as npz"):
        columns(found)
    with zipfile.ZipFile(working / "p.npz", "w") as archive:
        archive.writestr("x.npy", b"not an array")
    with pytest.raises(ResultsError, match=r"p\.npz"):
        columns(_fresh(working))
    assert not (tmp_path / "pwned").exists()


def _fresh(working: Path) -> Any:
    data = (working / "p.npz").read_bytes()
    (working / "p.npz").unlink()
    found = reader(working, files=["p.npz"])
    (working / "p.npz").write_bytes(data)
    return found


def from_r(working: Path, code: str) -> dict[str, list]:
    found = reader(working, files=["a.rds"])
    subprocess.run(["Rscript", "-e", code], cwd=working, check=True, timeout=120, capture_output=True)
    assert found.poll() is None
    return columns(found)


def test_a_data_frame_of_r_keeps_its_values(working: Path) -> None:
    read = from_r(
        working,
        """
        d <- data.frame(n = c(1L, NA), x = c(0.1, NA), s = c("é", NA), b = c(TRUE, NA), f = factor(c("u", NA)),
                        d = as.Date(c("2026-01-31", NA)), nan = c(NaN, Inf))
        d$t <- as.POSIXct(c("2026-01-31 12:00:00", NA), tz = "America/New_York")
        saveRDS(d, "a.rds")
        """,
    )
    assert math.isnan(read["nan"][0]) and read.pop("nan")[1] == math.inf
    assert read.pop("t")[0].startswith("2026-01-31 17:00:00.0")
    assert read == {"n": [1, None], "x": [0.1, None], "s": ["é", None], "b": [True, None], "f": ["u", None],
                    "d": ["2026-01-31", None]}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("d <- data.frame(x = 1:3); saveRDS(d[d$x > 1, , drop = FALSE], 'a.rds', compress = 'xz')", ["x"]),
        ("saveRDS(mtcars[1:2, 1:2], 'a.rds', compress = FALSE)", ["row_names", "mpg", "cyl"]),
    ],
)
def test_row_names_that_say_something_are_a_column(working: Path, code: str, names: list[str]) -> None:
    assert list(from_r(working, code)) == names


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("saveRDS(1:3, 'a.rds')", r"no data frame(.|\n)*as\.data\.frame"),
        ("d <- data.frame(x = 1:2); d$l <- I(list(1, 'a')); saveRDS(d, 'a.rds')", "column 'l'"),
        ("saveRDS(data.frame(z = 1i), 'a.rds')", "column 'z'"),
        ("saveRDS(lm(mpg ~ cyl, mtcars), 'a.rds')", "no data frame"),
    ],
)
def test_what_is_not_a_data_frame_is_refused(working: Path, code: str, problem: str) -> None:
    with pytest.raises(ResultsError, match=rf"a\.rds cannot be read as rds: .*{problem}"):
        from_r(working, code)
