"""Code that people paste into a notebook: it reads a stack's newest rows, whichever database the lab has.

What a database's own clients do better stands beside the database; this goes through `ems results`. Each keeps any text
as it is: in CSV, text stands in quotes; the readers of R and Octave would change `"01"` and carriage returns. In Python
no whole number loses digits: pandas makes doubles of those beside nulls, unless it is asked for its types with `<NA>`.
Arrow's threads now and then abort a script as it ends (apache/arrow, issue 34314), so that none are used.
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

command = ["ems", "results", "$stack", "--format", "parquet"]
done = subprocess.run(command, cwd=$root, stdout=subprocess.PIPE, check=True)
parquet = io.BytesIO(done.stdout)
frame = pandas.read_parquet(parquet, "pyarrow", dtype_backend="numpy_nullable", use_threads=False)
print(frame)
""")
R = Template(r"""setwd($root)
Sys.unsetenv("LD_LIBRARY_PATH")  # R's own libraries are not for other programs
file <- tempfile(fileext = ".csv")
status <- system2("ems", c("results", "$stack", "--format", "csv", "--out", file))
stopifnot(status == 0)
content <- readChar(file, file.size(file), useBytes = TRUE)
content <- gsub("\001", "\001A", content, fixed = TRUE, useBytes = TRUE)
content <- gsub("\r", "\001B", content, fixed = TRUE, useBytes = TRUE)  # read.csv takes it for the end of a line
Encoding(content) <- "UTF-8"
cells <- function(text, ...) read.csv(text = text, check.names = FALSE, na.strings = "", encoding = "UTF-8", ...)
bare <- gsub('"(?:[^"]++|"")*+"', "'", content, perl = TRUE)  # text stands in quotes
bare <- cells(bare, quote = "", header = FALSE, skip = 1, colClasses = "character")
is_text <- vapply(bare, function(column) any(column == "'", na.rm = TRUE), NA)
rows <- cells(content, colClasses = unname(ifelse(is_text, "character", NA)))
for (i in which(!is_text & vapply(rows, is.character, NA))) rows[[i]] <- as.logical(rows[[i]])
for (i in which(is_text)) {
  column <- gsub("\001A", "\001", gsub("\001B", "\r", rows[[i]], fixed = TRUE), fixed = TRUE)
  rows[[i]] <- ifelse(is.na(column) & !is.na(bare[[i]]), "", column)
}
print(head(rows))
""")
MATLAB = Template(r"""is_octave = exist('OCTAVE_VERSION', 'builtin');
formats = {'parquet', 'csv'};
file = [tempname() '.' formats{1 + logical(is_octave)}];
[status, message] = system(['cd $quoted && ems results $stack --out "' file '"']);
assert(status == 0, message);
if ~is_octave
    rows = parquetread(file);
else  % text stands in quotes, numbers and booleans do not
    cells = regexp(fileread(file), '("(?:[^"]++|"")*+"|[^",\n]*+)([,\n])', 'tokens');
    cells = vertcat(cells{:});
    cells = reshape(cells(:, 1), find(strcmp(cells(:, 2), "\n"), 1), [])';
    is_text = strncmp(cells, '"', 1);
    cells(is_text) = cellfun(@(cell) regexprep(cell(2:end - 1), '""', '"'), cells(is_text), 'UniformOutput', false);
    for i = 1:columns(cells)
        values = cells(2:end, i);
        if ~any(is_text(2:end, i))
            values = str2double(strrep(strrep(values, 'True', '1'), 'False', '0'));
        end
        rows.(cells{1, i}) = values;
    end
end
disp(rows);
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
