"""How machines of workers find the head: by one object of the bucket, which the head writes once its driver listens.

It has the key that workers and driver know each other by. An empty one says that there is nobody to work for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Meeting:
    """A worker is `command`, with a name and a number of seconds as its last words, in `folder`.

    `files`: what lies on the head's disk and must on theirs, by path.
    """

    command: Sequence[str]
    variables: Mapping[str, str]
    folder: str
    files: Mapping[str, str]

    def told(self) -> str:
        """As the object has it."""
        return json.dumps(asdict(self))

    @staticmethod
    def of(told: str) -> Meeting | None:
        """None of an empty one."""
        said = json.loads(told or "{}")
        return Meeting(**said) if said else None
