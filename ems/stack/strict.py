"""What all models of a stack file have in common."""

from __future__ import annotations

from pydantic import BaseModel, BeforeValidator, ConfigDict

AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


class Strict(BaseModel):
    """A mapping of a stack file: keys that it does not have are refused; once made, it does not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
