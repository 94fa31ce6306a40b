"""The documentation is whole: every page is reached from the index, every public name is on the reference page."""

import re
from pathlib import Path

import omg_transformers

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_index_lists_every_page_twice():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    assert len(pages) >= 8
    assert set(re.findall(r"\{doc\}`([^`]+)`", index)) == pages
    assert set(re.search(r"```\{toctree\}\n:hidden:\n\n(.*?)```", index, re.DOTALL)[1].split()) == pages


def test_the_reference_names_every_public_name():
    reference = (DOCS / "api.md").read_text(encoding="utf-8")
    missing = [name for name in omg_transformers.__all__ if not re.search(rf"\b{name}\b", reference)]
    assert missing == []
