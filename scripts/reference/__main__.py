"""`python -m scripts.reference` writes all pages of docs/reference."""

from __future__ import annotations

from scripts.reference import FOLDER, PAGES, render

FOLDER.mkdir(parents=True, exist_ok=True)
for name in PAGES:
    (FOLDER / name).write_text(render(name), encoding="utf-8")
