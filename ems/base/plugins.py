"""Plug-ins: a folder in `ems.databases`, `ems.stores` or `ems.clusters`, whose name is its registration.

A file beside the folders is shared by them. Plug-ins are listed without being imported, so that a missing optional
package breaks only the lab that uses it.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from types import ModuleType

from ems.base.errors import UserError


def names(package: str) -> list[str]:
    """Names of the plug-ins in `ems.PACKAGE`, sorted."""
    return list(_names(package))


@cache
def _names(package: str) -> tuple[str, ...]:
    folder = Path(__file__).parents[1] / package
    return tuple(sorted(module.name for module in pkgutil.iter_modules([str(folder)]) if module.ispkg))


def load(package: str, name: str, module: str) -> ModuleType:
    """The module `ems.PACKAGE.NAME.MODULE`; UserError names the extra to install if a package is missing."""
    try:
        return importlib.import_module(f"ems.{package}.{name}.{module}")
    except ImportError as error:
        raise UserError(
            f"{package.removesuffix('s').capitalize()} {name!r} needs a package that is not installed: {error}.",
            f"pip install 'ems-experiments[{name}]'",
        ) from error
