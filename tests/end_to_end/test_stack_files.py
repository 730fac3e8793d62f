"""Stack files as the engine itself reads and rewrites them: one reader of YAML, and Pulumi's rules, everywhere.

The tables are to grow: what somebody finds in a file goes into one of them.
"""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import pytest

from ems.base.errors import StackFileError
from ems.base.messages import UnquotedDate
from ems.base.process import CommandFailed
from ems.engine.runner import Pulumi
from ems.lab import Lab
from ems.stack import scalars, stackfile, yamlfile

SCALARS = """
1e-3 1E3 1e5 1e+5 .5 1. +1.5e+3 -0.5 -.5 +.5 0 -0 +0 -7 +7 1_000 1_000.5 1__0 _1 1_ 0x1F 0X1f -0x1f +0x1f 0x1_F 0x
0o17 -0o17 +0o17 0O17 0o8 017 -017 +017 00 0_7 08 089 0b101 -0b101 +0b101 0B101 0b2 1e400 -1e400 1e308 1e-999 2.0 100.0
1e20 1e21 1e22 123456789012345678901234567890 9223372036854775807 9223372036854775808 18446744073709551615
18446744073709551616 -9223372036854775808 -9223372036854775809 0.30000000000000004 5e-324 1.7976931348623157e308
true True TRUE tRUE false False FALSE yes Yes YES no No NO on On off OFF y Y n N null Null NULL nULL ~
2020-01-01 2020-1-2 2020-13-01 2021-02-29 2020-02-29 2020-1-2T3:4:5Z 2020-01-02T03:04:05.123 2020-01-02T25:00:00Z
2020-01-02t03:04:05Z 2020-01-02T03:04:05+01:00 2020-01-02T03:04:05.5-01:00 20200-01-01 0000-01-01 12:30 190:20:30 1:30.5
1.2.3 1,000 nan inf Infinity NaN -- + . .. = 0x1p-2 0x1.8p3 1e 1e+ e1 1.e3 1._5 .5_5 ._5 .5__5 .5e1_0 0.1_5 1e1_0 +1e3
+.5e-2 é ١٢٣ 1d3 1f 0777 0o777 -0.0 0.0 1e0 1_e3 0x_1 0b_1 0o_7 +-1 ++1 0. -. .e1 0xFFFFFFFFFFFFFFFF 0xFFFFFFFFFFFFFFFFF
-0xFFFFFFFFFFFFFFFF +0xFFFFFFFFFFFFFFFF 0777777777777777777777 07777777777777777777777 0o7777777777777777777777
"""
SPACED = ["2020-01-02 03:04:05", "2020-01-02 03:04:05.5", "2020-01-02 03:04:05 +01:00", "2020-01-02 03:04", "1 2"]
DOCUMENTS = r"""
%YAML 1.1\n---\nconfig:\n  x:v: 1
%YAML 1.2\n---\nconfig:\n  x:v: 1
---\nconfig:\n  x:v: 1\n...
config:\r\n  x:v: 1\r\n
{"config": {"x:v": {"a":1}}}
config:\n  x:v: "\/"
config:\n  x:v: "a\\\\/b"
config:\n  x:v: {a: "\x41\u0041\e"}
config:\n  x:v: {a: "\q"}
config:\n  x:v: {a: b?c}
config:\n  x:v: [http://x?y=1]
config:\n  x:v:\n    a: http://x?y=1 ? z
config:\n  x:v: {a: %b}
config:\n  x:v: {a: - b}
config:\n  x:v: {a:1}
config:\n  x:v: {a: b#c, d: e #f\n   }
config:\n  x:v: {a: 1}\n\t# c
config:\n\tx:v: 1
config:\n  x:v: {a, b}
config:\n  x:v: [a: 1]
config:\n  x:v: {a: 1, a: 2}
config:\n  x:v: 1\n  x:v: 2
config:\n  x:v: 1\nconfig:\n  x:w: 1
config:\n  x:y:z: 1
config:\n  x:config:y: 1
config:\n  x:config:y:z: 1
config:\n  x:v: .nan
config:\n  x:v: {a: [.inf]}
config: [1]
encryptionsalt: [1]\nconfig: {x:v: 1}
config:\n  x:v: |2\n      a
config:\n  x:v: {a: é}
"""  # \n, \r and \t are characters


@pytest.fixture
def pulumi(here: Lab) -> Pulumi:
    found = Pulumi.of(here)  # which takes no other program than EMS's
    (here.stacks_dir / "__main__.py").write_text(
        "import pathlib, pulumi\npathlib.Path('handed.json').write_text(pulumi.Config('x').require('v'))\n"
    )
    return found


def written(pulumi: Pulumi, text: str, stack: str = "v") -> Path:
    file = pulumi.lab.stack_file(stack)
    file.write_text(text, encoding="utf-8", newline="")
    return file


def test_scalars_are_what_the_engine_hands_over_and_what_it_rewrites_stays_the_same(pulumi: Pulumi) -> None:
    words = [*SCALARS.split(), *SPACED]
    text = "config:\n  x:v:\n" + "".join(f"    k{number}: {word}\n" for number, word in enumerate(words))
    text += "".join(f"  y:k{number}: {word}\n" for number, word in enumerate(SCALARS.split()))
    file = written(pulumi, text)
    pulumi.quietly("stack", "init", "--no-select", "--stack", "v")
    assert "encryptionsalt" in file.read_text() and "1e-3" not in file.read_text()
    assert stackfile.meaning(file.read_bytes()) == stackfile.meaning(text.encode())
    written(pulumi, text + "".join(file.read_text().partition("encryptionsalt:")[1:]))
    pulumi.quietly("preview", "--stack", "v")
    handed = json.loads((pulumi.lab.stacks_dir / "handed.json").read_text())
    for number, word in enumerate(words):
        assert_same(word, scalars.scalar(word), handed[f"k{number}"])


def assert_same(word: str, ours: object, theirs: object) -> None:
    if isinstance(ours, UnquotedDate):
        assert isinstance(theirs, str) and theirs != word, word
    elif isinstance(ours, bool | str | None):
        assert (ours, type(ours)) == (theirs, type(theirs)), word
    else:
        assert isinstance(ours, int | float) and isinstance(theirs, int | float), word
        assert not isinstance(theirs, bool) and math.isclose(ours, theirs, rel_tol=1e-15), word


def test_documents_that_the_engine_refuses_are_refused_and_others_mean_the_same(pulumi: Pulumi) -> None:
    written(pulumi, "config: {}\n")
    pulumi.quietly("stack", "init", "--no-select", "--stack", "v")
    for line in DOCUMENTS.strip().splitlines():
        file = written(pulumi, line.replace(r"\n", "\n").replace(r"\r", "\r").replace(r"\t", "\t") + "\n")
        try:
            theirs = json.loads(pulumi.quietly("config", "--json", "--stack", "v"))
        except CommandFailed:
            with pytest.raises(StackFileError, match=r"x:|v\.yaml"):
                refuse(file)
        else:
            assert seen(file) == {key: value.get("objectValue", value["value"]) for key, value in theirs.items()}, line


def refuse(file: Path) -> None:
    """As `ems check` does; of what is a good file of another kind than EMS's, the test fails."""
    try:
        stackfile.read(file)
    except StackFileError as error:
        if {fault.key for fault in error.faults} != {"config"}:
            raise


def seen(file: Path) -> dict[str, object]:
    """The settings as they are after Pulumi has read them, with those of Pulumi.yaml."""
    content, _ = yamlfile.read(file)
    assert isinstance(content, dict)
    own = yamlfile.read(file.parents[1] / "Pulumi.yaml")[0]
    assert isinstance(own, dict)
    found = {key: value["value"] for key, value in own["config"].items()}
    for key, value in content["config"].items():
        found[key.replace(":config:", ":")] = value if isinstance(value, dict | list | str) else str(value)
    return found


def test_a_good_file_with_all_sorts_of_numbers_is_as_in_the_last_commit(here: Lab) -> None:
    file = here.stack_file("pi")
    text = file.read_text().partition("encryptionsalt")[0]  # so that Pulumi writes the file anew
    file.write_text(text.replace("points: 200000", "points: 2e5\n        rate: 1e-3\n        mask: 0o17"))
    who = ["-c", "user.name=EMS", "-c", "user.email=ems@localhost"]
    subprocess.run(["git", *who, "commit", "-qam", "Numbers"], cwd=here.root, check=True)
    pulumi = Pulumi.of(here)
    pulumi.quietly("stack", "init", "--no-select", "--stack", "pi")
    assert "rate: 0.001" in file.read_text()
    shown = subprocess.run(["ems", "check", "pi"], cwd=here.root, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout
