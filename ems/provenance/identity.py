"""What makes an experiment the same: its id is a function of these inputs, and of nothing else. Pure."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping


def digest(
    *,
    tree: str,
    job: Mapping[str, object],
    environment: str,
    python: str,
    inputs: Mapping[str, str],
    env: Mapping[str, str],
    columns: Mapping[str, str] | None = None,
    results: Mapping[str, object] | None = None,
) -> str:
    """SHA-256, 64 hexadecimal digits, of everything that decides what an experiment computes.

    `tree`: `Code.tree`; `job`: JSON values, whose lists keep their order and whose keys have none; `environment`:
    `Environment.digest`; `inputs`: digest of each input by name; `env`: the stack file's environment variables;
    `columns`: its types of columns, and `results`: which files are read and how; they count where there are any.
    """
    parts: dict[str, object] = {
        "tree": tree,
        "job": dict(job),
        "environment": environment,
        "python": python,
        "inputs": dict(inputs),
        "env": dict(env),
        **_said(columns, results),
    }
    return hashlib.sha256(_canonical(parts)).hexdigest()


def _said(columns: Mapping[str, str] | None, results: Mapping[str, object] | None) -> dict[str, object]:
    """Only what is said: ids are older than these keys."""
    return {name: dict(value) for name, value in (("columns", columns), ("results", results)) if value}


def job_digest(
    *,
    job: Mapping[str, object],
    inputs: Mapping[str, str],
    env: Mapping[str, str],
    columns: Mapping[str, str] | None = None,
    results: Mapping[str, object] | None = None,
) -> str:
    """SHA-256, 64 hexadecimal digits, of a sweep's job without its grids.

    Points of equal parameters, code, environment and this digest are the same.
    """
    parts = {"job": dict(job), "inputs": dict(inputs), "env": dict(env), **_said(columns, results)}
    return hashlib.sha256(_canonical(parts)).hexdigest()


def experiment_id(lab_id: uuid.UUID, stack: str, digest: str) -> str:
    """UUIDv5 text. The digest has a fixed length, so no two pairs of stack and digest give the same name."""
    return str(uuid.uuid5(lab_id, f"{stack}:{digest}"))


def _canonical(value: object) -> bytes:
    """JSON with sorted keys and without spaces; Python writes floats as the shortest text that reads back the same."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
