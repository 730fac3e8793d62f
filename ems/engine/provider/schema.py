"""The package's schema, so that `pulumi package` and programs in other languages know the types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ems.base.version import __version__
from ems.engine.provider.resource import Resource


def schema(resources: list[Resource]) -> dict[str, Any]:
    """A Pulumi package schema of `resources`."""
    return {
        "name": "ems",
        "version": __version__,
        "description": "Computational experiments as Pulumi stacks.",
        "resources": {resource.token: _resource(resource) for resource in resources},
    }


def _resource(resource: Resource) -> dict[str, Any]:
    return {
        "description": (type(resource).__doc__ or "").strip(),
        "inputProperties": _properties(resource.inputs),
        "properties": _properties({**resource.inputs, **resource.outputs}),
    }


def _properties(types: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"type": kind} for name, kind in types.items()}
