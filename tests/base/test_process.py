from __future__ import annotations

import sys

import pytest

from ems.base import process
from ems.base.process import CommandFailed, run


def test_standard_output_comes_back(tmp_path):
    script = "import os, sys; print(os.getcwd(), os.environ['X'], sys.stdin.read() == '')"
    assert run([sys.executable, "-c", script], cwd=tmp_path, env={"X": "é"}) == f"{tmp_path} é True\n"


def test_a_failure_shows_command_exit_code_and_both_streams():
    script = "import sys; print('to out'); print('to err', file=sys.stderr); sys.exit(3)"
    with pytest.raises(CommandFailed) as caught:
        run([sys.executable, "-c", script])
    failed = caught.value
    assert (failed.code, failed.stdout, failed.stderr) == (3, "to out\n", "to err\n")
    assert all(part in failed.message for part in (sys.executable, "exit code 3", "to out", "to err"))


def test_output_that_is_no_text_is_shown_as_far_as_it_is():
    assert run([sys.executable, "-c", "import sys; sys.stdout.buffer.write(b'a\\xffb')"]) == "a\ufffdb"


def test_a_program_that_is_missing_or_cannot_run(tmp_path):
    with pytest.raises(CommandFailed, match="no-such-program: not found") as caught:
        run(["no-such-program"])
    assert caught.value.code == 127
    (tmp_path / "plain").write_text("text")
    with pytest.raises(CommandFailed, match="Permission denied") as caught:
        run([tmp_path / "plain"])
    assert caught.value.code == 126


def test_a_program_that_does_not_end():
    with pytest.raises(CommandFailed, match=r"no end within 0\.2 s") as caught:
        run([sys.executable, "-c", "import time; time.sleep(600)"], timeout_s=0.2)
    assert caught.value.code == 124


def test_uv_is_the_one_of_this_environment():
    assert process.uv("--version").startswith("uv ")
