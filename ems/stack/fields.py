"""The kinds of values that only a stack file has: names, days, commits, paths, parameters, commands. Pure."""

from __future__ import annotations

import keyword
import re
import shlex
from datetime import date, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated

from ems.base.messages import quoted, show
from ems.spool.kinds import DECLARED
from ems.stack.checks import Checked, finite, matching, one_line, one_of, text_of
from ems.sweep import placeholders

Scalar = bool | int | float | str | None


def _name_problem(text: str) -> str | None:
    return f"is {show(text)}: allowed is a name without `..`" if ".." in text else None


NAME = matching(
    r"[A-Za-z][A-Za-z0-9_.-]{0,62}",
    "a name of up to 63 letters, digits, `_`, `.`, `-`, with a letter first",
    _name_problem,
)

Name = Annotated[str, NAME]

STACK = matching(  # as Pulumi's, but for a first `-` or `.`, with which no command line takes it for a name
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}",
    "a name of up to 100 letters of English, digits, `_`, `.`, `-`, with a letter, digit or `_` first",
)

_TABLES = """
experiment experimenter project funding cluster run point charge copied proposed output schema_version
ix_experiment_newest loaded_batch database_identity
"""  # the last ones are an index, and what BigQuery and SQLite have besides
RESERVED_TABLES = frozenset(_TABLES.split())


def _table_problem(text: str) -> str | None:
    if text in RESERVED_TABLES or text.startswith(("sqlite_", "pg_")):
        return f"is {show(text)}: the database keeps that name for itself; allowed is another one, as results_{text}"
    return None


TABLE = matching(
    "[a-z][a-z0-9_]{0,48}", "a name of up to 49 lower-case letters, digits and `_`, with a letter first", _table_problem
)


def _variable_problem(text: str) -> str | None:
    if text.startswith("EMS_"):
        return f"is {show(text)}: names that start with EMS_ belong to EMS; choose another one"
    return None


VARIABLE = matching("[A-Za-z_][A-Za-z0-9_]*", "a name of letters, digits and `_`, no digit first", _variable_problem)


RESERVED_COLUMNS = frozenset(["experiment_id", "point", "row", "rowid"])


def _check_column(value: object) -> str:
    text = one_line(value, "the name of a column")
    if not text or text.lower() in RESERVED_COLUMNS:
        raise ValueError(f"is {show(text)}, which no column of results files can be called: allowed is another name")
    return text


COLUMN = Checked(_check_column, {"type": "string", "minLength": 1})


REACH = one_of(("runner",))
PROTOCOLS = ("process", "lines")
PROTOCOL = one_of(PROTOCOLS)
COLUMN_TYPE = one_of(DECLARED)


def _axis_problem(text: str) -> str | None:
    if text.lower() in RESERVED_COLUMNS:
        return f"is {show(text)}: results tables keep that name for themselves; allowed is another one, as {text}_"
    if text == "zip":
        return "is zip, the key of axes that move together: allowed is another name"
    if keyword.iskeyword(text):
        return f"is {show(text)}, a word of Python that no function can take: allowed is another one, as {text}_"
    return None


AXIS = matching(
    "[A-Za-z][A-Za-z0-9_]{0,62}", "a name of up to 63 letters, digits and `_`, with a letter first", _axis_problem
)
FUNCTION = matching(
    r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", "a function as module:function, as package.module:name"
)


def _check_day(value: object) -> date:
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    text = text_of(value, 'a day in quotes, as "2027-12-31"')
    if unquoted := re.fullmatch(r"(\d{4}-\d\d-\d\d)[T ].*", text):
        raise ValueError(f'is the time {show(text)}: allowed is a day; quote it: "{unquoted[1]}"')
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            return date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"is {show(text)}, which no calendar has ({error}): allowed is a day of it") from error
    raise ValueError(f'is {show(text)}: allowed is a day in quotes, as "2027-12-31"')


DAY = Checked(_check_day, {"type": "string", "format": "date"})

FULL_HASH = re.compile(r"[0-9a-fA-F]{40}([0-9a-fA-F]{24})?")


def _check_commit(value: object) -> str:
    allowed = "HEAD or a full commit hash of 40 (or 64) hexadecimal digits"
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f'is the number {show(value)}: quote it: commit: "…"; allowed is {allowed}')
    text = one_line(value, allowed)
    if text == "HEAD":
        return text
    if not FULL_HASH.fullmatch(text):
        raise ValueError(f"is {show(text)}: allowed is {allowed}; {_full_hash_command(text)}")
    return text.lower()


def _full_hash_command(text: str) -> str:
    name = shlex.quote(text) if 0 < len(text) <= 60 and not text.startswith("-") else "NAME"
    return f"`git rev-parse {name}` prints the full one; of a `repo`: `git ls-remote URL {name}`"


COMMIT = Checked(_check_commit, {"type": "string", "pattern": f"^(HEAD|{FULL_HASH.pattern})$"})


_ANY_PATH = "a relative path of a file or folder, as src/model (no paths at all: the whole tree)"


def _check_path(value: object, allowed: str = _ANY_PATH) -> str:
    text = one_line(value, allowed)
    if problem := _path_problem(text):
        raise ValueError(f"is {show(text)}, which {problem}: allowed is {allowed}")
    return str(PurePosixPath(text))


def _path_problem(text: str) -> str:
    path = PurePosixPath(text)
    if path.is_absolute():
        return "starts with `/`"
    if ".." in path.parts:
        return "has `..` in it"
    if re.search(r"[\"'`\\*?\[\]]", text):
        return "has a quote, a backslash or a pattern's sign in it"
    if text.startswith(("-", ":", "~")):
        return "starts with `-`, `:` or `~`"
    return "" if path.parts else "names nothing"


PATH = Checked(_check_path, {"type": "string", "pattern": r"^[^-/:~\"'`\\*?\[\]][^\"'`\\*?\[\]]*$"})


_LOCK_NAMES = r"uv\.lock|pylock(\.[^./]+)?\.toml|[^/]+\.txt"


def _check_lock(value: object) -> str:
    """A path from the lab's folder, which may lead up in the lab's repository."""
    allowed = "the path of a lock from the lab's folder: uv.lock, pylock.toml or a pinned requirements.txt"
    text = one_line(value, allowed)
    inner = re.sub(r"^(\.\./)+", "", text)
    if problem := _path_problem(inner):
        raise ValueError(f"is {show(text)}, which {problem}: allowed is {allowed}")
    if not re.fullmatch(_LOCK_NAMES, PurePosixPath(inner).name):
        raise ValueError(f"is {show(text)}: allowed is {allowed}{_way_to_a_lock(PurePosixPath(inner).name)}")
    return text.removesuffix(inner) + str(PurePosixPath(inner))


def _way_to_a_lock(name: str) -> str:
    ways = {
        "pyproject.toml": "`uv lock` writes uv.lock beside it",
        "environment.yml": "`ems env lock NAME --from environment.yml` locks its pip part in environments/NAME/",
        "environment.yaml": "`ems env lock NAME --from environment.yaml` locks its pip part in environments/NAME/",
    }
    return f"; {ways[name]}" if name in ways else ""


LOCK = Checked(_check_lock, {"type": "string", "pattern": rf"(^|/)({_LOCK_NAMES})$"})
GROUP = matching("[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", "a name of letters, digits, `.`, `_`, `-`")
PYTHON = matching(r"\d+\.\d+(\.\d+)?", 'MAJOR.MINOR[.PATCH] in quotes, as "3.11"')


_REPOSITORY = re.compile(
    r"https://[A-Za-z0-9][\w.-]*(:\d+)?/[^\s?#]+"
    r"|ssh://([\w.-]+@)?[A-Za-z0-9][\w.-]*(:\d+)?/\S+"
    r"|[A-Za-z0-9_][\w.-]*@[A-Za-z0-9][\w.-]*:[^\s:]+"
    r"|file:///\S.*"
    r"|/.+",
    re.ASCII,
)


def _check_repository(value: object) -> str:
    allowed = "a URL of https, ssh or file, git@HOST:PATH or an absolute path"
    text = one_line(value, allowed)
    address = re.fullmatch(r"([A-Za-z][\w+.-]*://)([^/]*)@(.*)", text)
    if address and (":" in address[2] or address[1].lower().startswith("http")):
        clean = quoted(f"{address[1]}***@{address[3]}")
        raise ValueError(f"is {clean}, with a password or token: leave it out; git's credential helper knows it")
    if not _REPOSITORY.fullmatch(text):
        raise ValueError(f"is {show(text)}: allowed is {allowed}, without password, `?` and `#`")
    return text


REPOSITORY = Checked(_check_repository, {"type": "string", "pattern": r"^(https://|ssh://|file:///|/|[^@/]+@[^:]+:)"})


INPUT_NAME = matching(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}",
    "the name of a file, of up to 100 letters, digits, `_`, `.`, `-`, with a letter, digit or `_` first",
    _name_problem,
)


def _check_sha256(value: object) -> str:
    allowed = "the SHA-256 of the file, 64 hexadecimal digits in quotes; `sha256sum FILE` prints it"
    text = one_line(value, allowed)
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"is {show(text)}, of {len(text)} characters: allowed is {allowed}")
    return text.lower()


SHA256 = Checked(_check_sha256, {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})

_INPUT_URL = re.compile(
    r"https://[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?/[!-~]+"
    r"|(gs|s3)://[a-z0-9][a-z0-9._-]*[a-z0-9]/[^/].*"
    r"|file:///[^/].*",
    re.ASCII,
)
_SECRET_WORD = re.compile(
    "[?&]([^=&]*(signature|token|password|secret|credential|api_?key|access_?key)[^=&]*|sig|key|auth)=", re.IGNORECASE
)


def _check_input_url(value: object) -> str:
    """Where a file is; with credentials in it, the message does not repeat them."""
    allowed = "a path from the lab's folder, as data/rates.csv, or https://…, gs://BUCKET/…, s3://BUCKET/…, file:///…"
    text = one_line(value, allowed)
    if text.startswith("/"):
        raise ValueError(f"is {show(text)}: allowed is {allowed}; write file://{text}")
    if "://" not in text:
        return _check_path(text, allowed)
    if re.match("[^/]*://[^/]*@", text) or _SECRET_WORD.search(text):
        clean = quoted(re.sub("://[^/]*@", "://***@", text).partition("?")[0])
        raise ValueError(
            f"is {clean}, with a password, token or signature: leave it out; of gs and s3 the service's own "
            "credentials are found"
        )
    if not _INPUT_URL.fullmatch(text) or "#" in text or text.endswith("/"):
        raise ValueError(f"is {show(text)}: allowed is {allowed}")
    return text


INPUT_URL = Checked(_check_input_url, {"type": "string", "pattern": r"^(https://|gs://|s3://|file:///|[^-/:~][^:]*$)"})


def check_scalar(value: object, allowed: str) -> Scalar:
    """A parameter as it is written: of a whole number every digit.

    ValueError says that `allowed` is allowed: for what is neither text, a finite number, a boolean nor null.
    """
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, int | float):
        return one_line(value, allowed, "\n\t")
    kept = finite(value)
    if kept is None:
        raise ValueError(f"is {show(value)}: allowed is {allowed} (numbers are finite)")
    as_pulumi_writes(kept)
    return kept


def as_pulumi_writes(value: float) -> float:
    """A number as Pulumi's JSON would bring it: it writes 2.0 as 2, and 1e20 with all its digits.

    ValueError if it has more digits than it can keep.
    """
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    as_float = float(value)
    shortest = Decimal(repr(as_float))
    if isinstance(value, int) and value not in (int(as_float), int(shortest)):
        problem = "more digits than a number can keep: allowed are those of 64 bits; quote it, to keep it as text"
        raise ValueError(f"is {show(value)}, {problem}")
    return int(shortest) if as_float.is_integer() and abs(as_float) < 1e21 else as_float


def as_hashed(value: object) -> object:
    """A parameter as ids are computed from it: a number as Pulumi's JSON would bring it, in its shortest digits."""
    return as_pulumi_writes(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_parameter(value: object) -> Scalar | list[Scalar]:
    allowed = "text, a number, true, false, null, or a list of these"
    if not isinstance(value, list | tuple):
        return check_scalar(value, allowed)
    kept = []
    for position, item in enumerate(value):
        try:
            kept.append(check_scalar(item, allowed))
        except ValueError as error:
            raise ValueError(f"item {position} {error}") from error
    return kept


_SCALAR_SCHEMA = {"type": ["string", "number", "boolean", "null"]}
PARAMETER = Checked(_check_parameter, {"anyOf": [_SCALAR_SCHEMA, {"type": "array", "items": _SCALAR_SCHEMA}]})

_SHELL = frozenset(["|", "||", "&", "&&", ";", "<", ">", ">>", "2>", "2>&1"])


def _check_command(value: object) -> tuple[str, ...]:
    example = "as [python, fit.py]"
    if isinstance(value, str):
        return _split(one_line(value, "a command"), example)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError(f"is {show(value)}: allowed is a list of words, {example}, or one line of text")
    kept = tuple(_word(word, f"a list of words, {example}") for word in value)
    if not kept[0].strip():
        raise ValueError(f"starts with {show(kept[0])}: allowed is the name of a program first, {example}")
    return kept


def _word(value: object, allowed: str) -> str:
    """A word of a command, which may have several lines; a number in its shortest digits, as Pulumi hands it over."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        check_scalar(value, allowed)
        return placeholders.text_of(as_pulumi_writes(value))
    return one_line(value, allowed, "\n\t")


def _split(line: str, example: str) -> tuple[str, ...]:
    try:
        found = tuple(shlex.split(line))
    except ValueError as error:
        raise ValueError(
            f"is {show(line)}, which is not a command ({error}): allowed is a list too, {example}"
        ) from error
    if not found or not found[0].strip():
        raise ValueError(f"is {show(line)}, which names no program: allowed is a command, {example}")
    if signs := [word for word in found if word in _SHELL]:
        raise ValueError(
            f"is {show(line)}, but no shell reads `{signs[0]}`: allowed is one program; or ask for a shell: "
            '[bash, -c, "…"]'
        )
    return found


COMMAND = Checked(
    _check_command,
    {
        "anyOf": [
            {"type": "string"},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}, "minItems": 1},
        ]
    },
)
