"""`python -m ems.cli`: the same as `ems`."""

from __future__ import annotations

from ems.cli.app import main

if __name__ == "__main__":
    main()
