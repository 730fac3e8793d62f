"""The one source of the version: packages, `ems --version` and the recorded platform read it here."""

from __future__ import annotations

__version__ = "0.1.0"
