"""What a stack file may say under `results:`, as types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import CoreSchema, core_schema

from ems.base.messages import show
from ems.stack import fields, result_fields
from ems.stack.strict import AsTuple, Strict

NONE = "none"


class FormatSpec(Strict):
    """How a program writes its results files, where their names do not say it."""

    type: Annotated[str, result_fields.TYPE] = Field(
        "", description="Form of files whose ending does not say it, and of what `files` names without one."
    )
    delimiter: Annotated[str, result_fields.DELIMITER] = Field(
        "",
        description='What separates the cells of CSV files, in quotes, as ";"; " " is any run of blanks. '
        "Left out: a comma, and a tab in .tsv files.",
    )
    header: Annotated[tuple[str, ...], result_fields.HEADER] = Field(
        (), description="Names of the columns of CSV files whose first line does not have them, as [n, loss]."
    )
    columns: dict[Annotated[str, fields.COLUMN], Annotated[str, fields.COLUMN_TYPE]] = Field(
        default={}, description="The same as `columns` of the results, for those who look for it here."
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in written(self).items() if value}


class ResultsSpec(Strict):
    """The results: rows of one table."""

    table: Annotated[str, fields.TABLE] = Field(description="Table of the lab's database that receives the rows.")
    columns: dict[Annotated[str, fields.COLUMN], Annotated[str, fields.COLUMN_TYPE]] = Field(
        default={},
        description="Types of columns of a command's results files, where the first value shall not settle them: text, "
        "integer, float or boolean, each under its column's name.",
    )
    files: Annotated[tuple[Annotated[str, result_fields.FILE], ...], AsTuple] = Field(
        (),
        description="Results files that a command writes under names of its own: paths or patterns below its working "
        "directory, as [final_results.txt, out/*.csv].",
    )
    format: FormatSpec = Field(FormatSpec(), description="How these files are written, where names do not say it.")
    stdout: Annotated[str, result_fields.OUTPUT] = Field(
        "", description="Form of the rows that a command prints on standard output: jsonl or csv; left out: none."
    )

    @model_serializer(mode="wrap")
    def _without_defaults(self, written: SerializerFunctionWrapHandler) -> dict[str, Any] | str:
        """What later versions added is not written where it is not said, so that old and new specs compare."""
        if self.none:
            return NONE
        return {key: value for key, value in written(self).items() if value or key in {"table", "columns"}}

    @property
    def none(self) -> bool:
        """Whether the job has no rows, and said so."""
        return not self.table

    @property
    def types(self) -> dict[str, str]:
        """Types of columns, wherever they are said."""
        return {**self.columns, **self.format.columns}

    @property
    def reading(self) -> dict[str, Any]:
        """What decides, beside the types of columns, which rows are read of what a job writes; empty if nothing."""
        found = {"files": self.files, "stdout": self.stdout, **self.format.model_dump(exclude={"columns"})}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items() if value}


NO_RESULTS = ResultsSpec.model_construct(table="")


@dataclass(frozen=True)
class OrNone:
    """`results: none`, for jobs without rows."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(_check_results, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"oneOf": [handler(core), {"const": NONE, "type": "string"}]}


def _check_results(value: object) -> object:
    if value == NONE:
        return NO_RESULTS
    if isinstance(value, str) or value is None:
        keys = ", ".join(ResultsSpec.model_fields)
        allowed = f"a mapping with the keys {keys}, or `none` for a job without rows"
        raise ValueError(f"is {show(value)}: allowed is {allowed}")
    return value
