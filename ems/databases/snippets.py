"""Code that people paste into a notebook: it reads a stack's newest rows, whichever database the lab has.

What a database's own clients do better stands beside the database; this goes through `ems results`, as CSV.
"""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import Literal

from ems.base.errors import UserError

Language = Literal["python", "r", "matlab", "sql"]

PYTHON = Template("""\
import io
import subprocess

import pandas

command = ["ems", "results", "$stack", "--format", "csv"]
done = subprocess.run(command, cwd=$root, stdout=subprocess.PIPE, text=True, check=True)
frame = pandas.read_csv(io.StringIO(done.stdout))
print(frame)
""")
R = Template("""\
setwd($root)
Sys.unsetenv("LD_LIBRARY_PATH")  # R's own libraries are not for other programs
file <- tempfile(fileext = ".csv")
status <- system2("ems", c("results", "$stack", "--format", "csv", "--out", file))
stopifnot(status == 0)
rows <- read.csv(file)
print(head(rows))
""")
MATLAB = Template("""\
file = [tempname() '.csv'];
[status, message] = system(['cd $quoted && ems results $stack --format csv --out "' file '"']);
assert(status == 0, message);
if exist('OCTAVE_VERSION', 'builtin')
    rows = dlmread(file, ',', 1, 0, 'emptyvalue', NaN);  % a matrix: point, row, then the other columns
else
    rows = readtable(file);
end
disp(rows(1:min(5, end), :))
""")
NEWEST = Template("""\
SELECT * FROM "$table"
WHERE experiment_id = (
  SELECT id FROM experiment WHERE stack = '$stack'
  ORDER BY destroyed_at IS NOT NULL, registered_at DESC LIMIT 1)
ORDER BY point, row""")


def through_csv(language: Language, stack: str, root: Path) -> str:
    """By `ems` itself, which must be on PATH. UserError for SQL."""
    if language == "sql":
        raise UserError("This lab's database does not speak SQL.", "Allowed: --snippet python, r or matlab")
    template = {"python": PYTHON, "r": R, "matlab": MATLAB}[language]
    quoted = f'"{root}"'.replace("'", "''")
    return template.substitute(stack=stack, root=text(root), quoted=quoted)


def newest(table: str, stack: str) -> str:
    """SQL, without a semicolon: the rows of the experiment that `stack` holds."""
    return NEWEST.substitute(table=table, stack=stack)


def text(value: object) -> str:
    """As Python and R both write it, in double quotes."""
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
