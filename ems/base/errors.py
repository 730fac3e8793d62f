"""The tree of errors. `ems` turns each into one message and an exit code; anything else is a fault of EMS.

EmsError                       exit  meaning
├── UserError                  2     a stack file, an option or a name is wrong
│   └── StackFileError         2     the same, with every fault of the file
├── ProvenanceError            3     code, environment or lock is not in a state that can be reproduced
├── DatabaseError              4     the lab's database cannot do what was asked
│   ├── DatabaseUnavailable    4     it does not answer now; the same call may work later
│   ├── NoTables               4     it has none of EMS's tables yet
│   ├── NotSelectable          2     a column, or a condition on it, that results do not have
│   └── FencedOut              4     another attempt holds the experiment: this one must stop
├── EngineError                5     Pulumi is missing or failed
├── ExperimentFailed           6     the experiment ended, but not with `succeeded`
├── Busy                       7     somebody else is at work on this stack or experiment
├── StoreError                 8     the lab's store of files cannot do what was asked
│   └── StoreUnavailable       8     it does not answer now, or is full; the same call may work later
└── Unreachable                9     a place far away does not answer now; the same call may work later
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass


class EmsError(Exception):
    """Something a person can fix. `hint` names the next command or the allowed values."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


def refused(error: OSError) -> EmsError:
    """What the operating system refused: a right, room, or that something else is where a file must be."""
    what = f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        hint = "Is it another user's, or read-only? See whose it is: ls -ld"
    elif error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "Free some space there, then repeat the command."
    else:
        hint = "Look at it: ls -ld; what EMS keeps beside the database is made again, once it is moved away."
    return EmsError(f"This machine refused: {what}", f"{hint} {error.filename}" if hint.endswith("ls -ld") else hint)


class UserError(EmsError):
    """A stack file, an option or a name is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Fault:
    """One thing wrong in a stack file. `line` counts from 1; 0 when it is not known."""

    key: str
    problem: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.problem) if part)


class StackFileError(UserError):
    """All faults of one stack file, or of Pulumi.yaml, at once."""

    def __init__(self, faults: Sequence[Fault], hint: str = "") -> None:
        super().__init__("\n".join(str(fault) for fault in faults), hint)
        self.faults = tuple(faults)


class ProvenanceError(EmsError):
    """Code, environment, input or lock is not in a state that can be reproduced."""

    exit_code = 3


class DatabaseError(EmsError):
    """The lab's database cannot do what was asked, or does not have what was asked for."""

    exit_code = 4


class DatabaseUnavailable(DatabaseError):
    """The database does not answer now; the same call may work later."""


class NoTables(DatabaseError):
    """The database has none of EMS's tables yet."""


class NotSelectable(DatabaseError):
    """A column that results do not have, or a condition that has no meaning for it."""

    exit_code = UserError.exit_code


class FencedOut(DatabaseError):
    """Another attempt holds the experiment: this one must stop."""


class EngineError(EmsError):
    """Pulumi is missing, or failed otherwise than by a run that did."""

    exit_code = 5


class ExperimentFailed(EmsError):
    """The experiment ended, but not with `succeeded`."""

    exit_code = 6


class Busy(EmsError):
    """Somebody else is at work on this stack or experiment."""

    exit_code = 7


class StoreError(EmsError):
    """The lab's store of files cannot do what was asked, or does not have what was asked for."""

    exit_code = 8


class StoreUnavailable(StoreError):
    """The store does not answer now, or is full; the same call may work later."""


class Unreachable(EmsError):
    """A place far away does not answer now, or nobody is logged in there; the same call may work later."""

    exit_code = 9
