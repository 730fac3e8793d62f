"""JSON Schema of stack files, for editors and the manual."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from ems.stack.models import KINDS, MODELS
from ems.stack.settings import NO_PLACES, Places

WRITTEN_BY_PULUMI = {  # by itself: at the first `stack init`, and when the place of the key for secrets changes
    "encryptionsalt": "Written by Pulumi.",
    "secretsprovider": "Written by Pulumi: where the key for secrets is.",
    "encryptedkey": "Written by Pulumi.",
}
PULUMI_KEYS = {
    **WRITTEN_BY_PULUMI,
    "environment": "Environments of Pulumi's own service.",  # written by people; they may hold configuration
}


def json_schema(places: Places = NO_PLACES) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a whole stack file; of places with the settings of all kinds."""
    models = [(MODELS[kind], "validation") for kind in KINDS]
    references, definitions = models_json_schema(models, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
    own, more = _settings(places)
    definitions["$defs"] |= more
    for name in ("ClusterSpec", "PlaceSpec"):
        definitions["$defs"][name]["properties"] |= own
        definitions["$defs"][name]["additionalProperties"] = False
    keys = {f"ems:{kind}": references[MODELS[kind], "validation"] for kind in KINDS}
    config = {
        "type": "object",
        "description": "Settings of the stack: exactly one of ems:lab, ems:cluster, ems:experiment.",
        "properties": keys,
        "patternProperties": {"^(?!ems:)": {}},
        "additionalProperties": False,
        "oneOf": [{"required": [key]} for key in keys],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "EMS stack file",
        "type": "object",
        "properties": {"config": config, **{key: {"description": text} for key, text in PULUMI_KEYS.items()}},
        "required": ["config"],
        "additionalProperties": False,
        "$defs": definitions["$defs"],
    }


def _settings(places: Places) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keys that kinds of places have, and the models that they refer to. Where several have a key, each says what
    it means there."""
    own: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for kind, model in places.items():
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.get("$defs", {})
        for key, value in schema["properties"].items():
            before = own.setdefault(key, value)
            if before != value:
                said = f"{before['description']} At a place of kind {kind}: {value['description']}"
                own[key] = {**before, "description": said}
    return own, definitions
