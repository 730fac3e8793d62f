"""What a stack file may say of the laptop, besides `kind: laptop`."""

from __future__ import annotations

from pydantic import Field

from ems.stack.models import Workers
from ems.stack.strict import Strict


class Settings(Strict):
    """The keys of a laptop."""

    workers: Workers | None = Field(
        None, description="How many processes compute at once; left out: one for each CPU of the place."
    )
