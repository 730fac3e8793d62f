"""Of what Pulumi writes into a stack file only its own keys stay."""

from __future__ import annotations

import pytest

from ems.engine.stack_text import keeping_text

WRITTEN = "config:\n  a:x: {y: [1.0, 1e3]}   # doubles\n\n  # the end"
REWRITTEN = "config:\n  a:x: {y: [1, 1000]} # doubles\n# the end\nencryptionsalt: v1:a=:v1:b\n"


@pytest.mark.parametrize(
    "before, after, left",
    [
        (WRITTEN, REWRITTEN, WRITTEN + "\nencryptionsalt: v1:a=:v1:b\n"),
        (WRITTEN + "\n\n", REWRITTEN, WRITTEN + "\nencryptionsalt: v1:a=:v1:b\n"),
        (WRITTEN, WRITTEN, WRITTEN),
        (WRITTEN, REWRITTEN.replace("1000", "1001"), REWRITTEN.replace("1000", "1001")),
        (WRITTEN + "\n...\n", REWRITTEN, REWRITTEN),
        ("", REWRITTEN, REWRITTEN),
    ],
)
def test_the_text_stays_if_it_says_the_same(tmp_path, before, after, left):
    file = tmp_path / "Pulumi.e.yaml"
    file.write_text(before)
    with keeping_text(file):
        file.write_text(after)
    assert file.read_text() == left


def test_the_text_stays_after_an_interruption(tmp_path):
    file = tmp_path / "Pulumi.e.yaml"
    file.write_text(WRITTEN)
    with pytest.raises(KeyboardInterrupt), keeping_text(file):
        file.write_text(REWRITTEN)
        raise KeyboardInterrupt
    assert file.read_text() == WRITTEN + "\nencryptionsalt: v1:a=:v1:b\n"


def test_a_file_that_is_not_there_is_not_made(tmp_path):
    with keeping_text(tmp_path / "none"):
        pass
    assert list(tmp_path.iterdir()) == []
