"""Programs as they are, in several languages and with odd manners, as plain commands through the real engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from ems.node.job.log import LEFT_OUT
from tests.end_to_end.conftest import User

ROOT = Path(__file__).parents[2]
HERE = "experiments/programs"
TEXT = 'it\'s "quoted", $HOME and `id`\n\tsecond line: ü {n} \\ %s\n'

R = """
words <- commandArgs(trailingOnly = TRUE)
n <- as.integer(words[1])
rows <- data.frame(k = 1:n, root = sqrt(1:n), name = words[2], odd = (1:n) %% 2 == 1, stringsAsFactors = FALSE)
rows$root[2] <- NA
write.csv(rows, file.path(Sys.getenv("EMS_RESULTS_DIR"), "rows.csv"), row.names = FALSE)
"""
OCTAVE = """
parameters = jsondecode (fileread (getenv ("EMS_PARAMETERS")));
file = fopen (fullfile (getenv ("EMS_RESULTS_DIR"), "rows.csv"), "w");
fprintf (file, "k,root\\n");
fprintf (file, "%d,%.17g\\n", [1:parameters.n; sqrt(1:parameters.n)]);
fclose (file);
"""
C = """
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words) {
    char path[4096];
    snprintf(path, sizeof path, "%s/rows.csv", getenv("EMS_RESULTS_DIR"));
    FILE *file = fopen(path, "w");
    fprintf(file, "k,third\\n");
    for (int k = 0; k < atoi(words[1]); k++) fprintf(file, "%d,%.17g\\n", k, k / 3.0);
    return fclose(file);
}
"""
ARGPARSE = """
import argparse, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float)
parser.add_argument("--name")
parser.add_argument("rest", nargs="*")
found = vars(parser.parse_args())
found["rest"] = json.dumps(found["rest"])
pathlib.Path(os.environ["EMS_RESULTS_DIR"], "rows.jsonl").write_text(json.dumps(found))
"""
CLICK = """
import csv, os, pathlib
import click

@click.command()
@click.option("--n", type=int, required=True)
@click.option("--name", required=True)
def main(n, name):
    with pathlib.Path(os.environ["EMS_RESULTS_DIR"], "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["k", "name"], *([k, name] for k in range(n))])
    click.secho("done", fg="green")

main()
"""
VARIABLES = """
import json, os, pathlib
rows = pathlib.Path(os.environ["EMS_RESULTS_DIR"], "rows.jsonl")
rows.write_text(json.dumps({"text": os.environ["TEXT"], "empty": os.environ["EMPTY"]}) + "\\n")
"""
DAEMON = """
import os, pathlib, sys, time
results = pathlib.Path(os.environ["EMS_RESULTS_DIR"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        (results / "pid.tmp").write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
while not (results / "pid.tmp").exists():
    time.sleep(0.01)
(results / "rows.csv").write_text(f"pid\\n{(results / 'pid.tmp').read_text()}\\n")
"""
FILES = {
    "fit.R": R,
    "fit.m": OCTAVE,
    "thirds.c": C,
    "train.py": ARGPARSE,
    "tool.py": CLICK,
    "variables.py": VARIABLES,
    "daemon.py": DAEMON,
}
CELL = "import os, pathlib\npathlib.Path(os.environ['EMS_RESULTS_DIR'], 'rows.csv').write_text('k\\n1\\n2\\n')"
ODD = ["--lr", "-1", "--name=--x", "--", "two words", "-1", "--x", 'it\'s "ü"', "{lr} {{n}}", "", "$HOME *"]
PRINTS = (
    "echo the first line; yes 'a line of the log' | head -c 1000000000; echo; echo the last line; printf unfinished"
)


class Programs(User):
    """Works on a lab with many programs, each of which is a stack."""

    def program(self, name: str, command: Sequence[str], **keys: Any) -> None:
        described = {
            "project": "first",
            "experimenter": "me",
            "funding": "unfunded",
            "code": {"paths": [HERE]},
            "environment": "svd",
            "job": {"command": list(command), "parameters": keys.pop("parameters", {})},
            "results": {"table": name},
            **keys,
        }
        self.write(f"stacks/Pulumi.{name}.yaml", json.dumps({"config": {"ems:experiment": described}}, indent=2))

    def table(self, name: str, columns: str) -> list[tuple[Any, ...]]:
        return self.query(f"SELECT {columns} FROM {name} ORDER BY row")

    def log(self, name: str) -> Path:
        ((id,),) = self.query(f"SELECT id FROM experiment WHERE stack = '{name}'")
        return self.root / ".ems/runs" / str(id) / "job.log"


@pytest.fixture(scope="module")
def lab(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    root = tmp_path_factory.mktemp("programs") / "lab"
    subprocess.run(["cp", "-a", str(template), str(root)], check=True)
    somebody = Programs(root)
    shutil.copytree(ROOT / "environments/svd", root / "environments/svd")
    for name, text in FILES.items():
        somebody.write(f"{HERE}/{name}", text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    nbformat.write(notebook, root / HERE / "look.ipynb")
    yield somebody
    somebody.end()


def run(lab: Programs, programs: Mapping[str, Mapping[str, Any]]) -> None:
    for name, keys in programs.items():
        lab.program(name, **keys)
    lab.commit("Programs")
    lab.ems("up", *programs)


def test_programs_of_several_languages(lab: Programs) -> None:
    convert = ["-m", "nbconvert", "--to", "notebook", "--execute", "--output", "run.ipynb", f"{HERE}/look.ipynb"]
    programs: dict[str, dict[str, Any]] = {
        "r": {"command": ["Rscript", f"{HERE}/fit.R", "3", 'two words, "ü"']},
        "octave": {"command": ["octave-cli", "--quiet", f"{HERE}/fit.m"], "parameters": {"n": 3}},
        "c": {"command": ["sh", "-c", f"cc -O2 -o thirds {HERE}/thirds.c && ./thirds 4"]},
        "argparse": {"command": ["python", f"{HERE}/train.py", *ODD]},
        "click": {"command": ["python", f"{HERE}/tool.py", "--n", "2", "--name", "-1"]},
        "notebook": {"command": [sys.executable, *convert]},
        "pipeline": {
            "command": [
                "bash",
                "-c",
                "(echo k,square; seq 9 | awk '{print $1 \",\" $1^2}' | tail -n 2) > $EMS_RESULTS_DIR/rows.csv",
            ]
        },
    }
    run(lab, programs)
    name, root = 'two words, "ü"', pytest.approx(3**0.5, abs=1e-14)  # write.csv has 15 digits
    assert lab.table("r", "k, root, name, odd") == [(1, 1.0, name, 1), (2, None, name, 0), (3, root, name, 1)]
    assert lab.table("octave", "k, root") == [(k, k**0.5) for k in (1, 2, 3)]
    assert lab.table("c", "k, third") == [(k, k / 3) for k in range(4)]
    ((rate, name, rest),) = lab.table("argparse", "lr, name, rest")
    assert (rate, name, json.loads(rest)) == (-1, "--x", ODD[4:])
    assert lab.table("click", "k, name") == [(0, -1), (1, -1)]  # in CSV a number
    assert lab.table("notebook", "k") == [(1,), (2,)]
    assert lab.table("pipeline", "k, square") == [(8, 64), (9, 81)]


def test_programs_with_odd_manners(lab: Programs) -> None:
    to = '> "$EMS_RESULTS_DIR/rows.csv"'
    programs: dict[str, dict[str, Any]] = {
        "variables": {"command": ["python", f"{HERE}/variables.py"], "env": {"TEXT": TEXT, "EMPTY": ""}},
        "daemon": {"command": ["python", f"{HERE}/daemon.py"]},
        "input": {"command": ["sh", "-c", f"read line; code=$?; (echo code; echo $code; cat) {to}"]},
        "printing": {"command": ["sh", "-c", f"{PRINTS}; echo k {to}"]},
        "unfinished": {"command": ["sh", "-c", f"printf 'k,text\\n1,a\\n2,b' {to}"]},
    }
    run(lab, programs)
    assert lab.table("variables", "text, empty") == [(TEXT, "")]
    ((daemon,),) = lab.table("daemon", "pid")
    assert not Path(f"/proc/{daemon}").exists()
    assert lab.table("input", "code") == [(1,)]
    assert lab.table("unfinished", "k, text") == [(1, "a"), (2, "b")]
    log = lab.log("printing")
    assert log.stat().st_size < 30 * 2**20
    (note,) = LEFT_OUT.finditer(log.read_bytes())
    said = lab.ems("logs", "printing").stdout
    assert said.startswith("--- attempt 1 ---\nthe first line\na line of the log\n")
    assert note[0].decode() in said
    assert "\nthe last line\nunfinished\n--- 0 rows; " in said[-300:]
    assert not lab.processes("experiments/programs")


def test_a_program_that_ends_within_a_line_keeps_the_whole_ones(lab: Programs) -> None:
    written = "printf 'k,text\\n1,a\\n2,' > \"$EMS_RESULTS_DIR/rows.csv\"; printf 'no newline' >&2; exit 5"
    lab.program("broken", ["sh", "-c", written])
    lab.commit("A program that fails")
    said = lab.ems("up", "broken", expect=6)
    assert "no newline" in said.stdout + said.stderr
    assert lab.table("broken", "k, text") == [(1, "a")]


def test_a_program_that_never_ends_is_ended_by_its_limit_or_by_command(lab: Programs) -> None:
    lab.program(
        "endless", ["sh", "-c", "echo k > $EMS_RESULTS_DIR/rows.csv; echo 7 >> $EMS_RESULTS_DIR/rows.csv; sleep 1000"]
    )
    lab.program("limited", ["sleep", "1000"], limits={"max_hours": 0.001})
    lab.commit("Programs that never end")
    lab.ems("up", "endless", "limited", "--detach")
    lab.wait(lambda: lab.query("SELECT rows_stored FROM experiment WHERE stack = 'endless'") == [(1,)])
    lab.ems("stop", "endless")
    lab.wait(lambda: (lab.state("endless"), lab.state("limited")) == ("cancelled", "expired"))
    assert lab.table("endless", "k") == [(7,)]
    lab.wait(lambda: not lab.processes("sleep", "1000"))
