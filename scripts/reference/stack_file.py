"""Every key of a stack file, from the JSON Schema that `ems schema` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ems import clusters
from ems.stack.models import KINDS
from ems.stack.schema import json_schema
from scripts.reference.markdown import code, table

INTRODUCTION = """# Stack-file keys

A stack file is `stacks/Pulumi.NAME.yaml`. Its `config:` has exactly one of `ems:lab`, `ems:cluster` and
`ems:experiment`. [Stack files](../stack-files.md) explains how to write one; `ems schema` prints the same as a
JSON Schema, for editors. Unknown keys are refused. `NAME` stands for a name of your choice.
"""
Schema = Mapping[str, Any]
NAMES = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "object": "object",
    "boolean": "true or false",
}
LIMITS = {"minimum": "at least {}", "exclusiveMinimum": "more than {}", "maximum": "at most {}", "format": "as a {}"}


def page() -> str:
    schema = json_schema(clusters.settings())
    config, definitions = schema["properties"]["config"]["properties"], schema["$defs"]
    kinds = (section(f"ems:{kind}", config[f"ems:{kind}"], definitions) for kind in KINDS)
    return "\n".join([INTRODUCTION, *(part for parts in kinds for part in parts)])


def section(path: str, schema: Schema, definitions: Schema) -> Iterator[str]:
    """The keys below `path`, then a section for each of them that has keys itself."""
    for model in models(schema, definitions):
        keys = model["properties"]
        yield f"## {path}{variant(model, schema)}\n"
        yield model["description"] + "\n"
        required = set(model.get("required", ()))
        yield table(["key", "type", "default", "meaning"], (row(key, keys[key], required) for key in keys))
        for key, below in keys.items():
            yield from section(f"{path}.{key}" + (".NAME" if "patternProperties" in below else ""), below, definitions)


def models(schema: Schema, definitions: Schema) -> list[Schema]:
    """The models that a key's value may be; none for a plain value."""
    names = [each["$ref"] for each in references(schema)]
    return [definitions[name.rpartition("/")[2]] for name in names]


def references(schema: Schema) -> list[Schema]:
    inner = [schema, *schema.get("oneOf", ()), *schema.get("anyOf", ()), *schema.get("patternProperties", {}).values()]
    return [each for each in inner if "$ref" in each]


def variant(model: Schema, schema: Schema) -> str:
    """Which of several forms this is, after its required keys."""
    return f" with {' and '.join(model['required'])}" if len(references(schema)) > 1 else ""


def row(key: str, schema: Schema, required: set[str]) -> list[str]:
    default = "required" if key in required else default_of(schema)
    return [code(key), type_of(schema), default, schema["description"]]


def default_of(schema: Schema) -> str:
    default = schema.get("default")
    if isinstance(default, dict):
        default = {key: value for key, value in default.items() if value not in (None, [], {})}
    return "" if default in (None, "", [], {}) else code(json.dumps(default))


def type_of(schema: Schema) -> str:
    allowed = [value for value in schema.get("enum", ()) if value is not None]
    if allowed:
        return "one of: " + ", ".join(map(code, allowed))
    if "patternProperties" in schema or references(schema):
        plain = (form(each) for each in schema.get("oneOf", ()) if "$ref" not in each)
        return " or ".join([*plain, "object"])
    forms = [form(each) for each in alternatives(schema) if each.get("type") != "null"]
    return " or ".join(forms)


def alternatives(schema: Schema) -> list[Schema]:
    return schema.get("anyOf") or schema.get("oneOf") or [schema]


def form(schema: Schema) -> str:
    """One plain type with its limits, or several."""
    if "type" not in schema:
        return " or ".join(map(form, alternatives(schema)))
    if schema["type"] == "array":
        return f"list of {' or '.join(map(form, alternatives(schema['items'])))}"
    name = NAMES[schema["type"]]
    limits = [text.format(schema[key]) for key, text in LIMITS.items() if key in schema]
    return f"{name} ({', '.join(limits)})" if limits else name
