"""Cells between other signs are read as those between commas are, whatever is in them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ems.base.errors import UserError
from ems.importing.delimited import CommaFile, DelimitedFile
from ems.importing.files import sign_of
from ems.node.job.columns import KnownTypes

CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('";,\t|\n'), max_size=8)
SHARED = [HealthCheck.function_scoped_fixture]


def read(file: CommaFile, rows: int, size: int = 2**20) -> list[list[object]]:
    found: dict[str, list[object]] = {}
    while (chunk := file.take(rows, size, True)) is not None:
        for column in chunk.columns:
            found.setdefault(column.name, []).extend(column.values)
    return list(found.values())


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=9), sign=st.sampled_from(";\t|,"), data=st.data())
@settings(suppress_health_check=SHARED)
def test_any_cells_come_back(tmp_path: Path, rows, sign, data):
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=sign, quoting=csv.QUOTE_ALL, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"]))
    )
    writer.writerow("ab")
    writer.writerows(rows)
    path = tmp_path / "cells.txt"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    file = DelimitedFile(path, KnownTypes({"a": "text", "b": "text"}), sign)
    assert read(file, data.draw(st.integers(1, 4)), data.draw(st.sampled_from([1, 2**20]))) == [
        [a for a, _ in rows],
        [b for _, b in rows],
    ]


@given(
    lines=st.lists(
        st.sampled_from(["1;2", '"a;b";"c""d"', "x;", ";", '"";NA', "0.5;true", '"two\nlines";1']), max_size=9
    )
)
@settings(suppress_health_check=SHARED)
def test_it_reads_as_commas_do(tmp_path: Path, lines):
    text = "\n".join(["a;b", *lines])
    for name, content in (("semicolons", text), ("commas", text.replace(";", ","))):
        (tmp_path / name).write_text(content)
    types = {"a": "text", "b": "text"}
    found = read(DelimitedFile(tmp_path / "semicolons", KnownTypes(types), ";"), 100)
    expected = read(CommaFile(tmp_path / "commas", KnownTypes(types)), 100)
    plain = [[value and str(value).replace(";", ",") for value in column] for column in found]
    assert plain == expected


@pytest.mark.parametrize(
    ("text", "sign"), [("tab", "\t"), ("\\t", "\t"), ("Semicolon", ";"), ("|", "|"), ("space", " ")]
)
def test_words_for_signs(text, sign):
    assert sign_of(text) == sign


@pytest.mark.parametrize("text", ["", "ab", "a", "1", ".", "-", '"', "\n", "¦"])
def test_what_cannot_stand_between_cells(text):
    with pytest.raises(UserError, match="cannot stand between cells"):
        sign_of(text)
