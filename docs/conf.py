"""Builds the documentation: Markdown pages, and a reference from the docstrings. See `make docs`."""

import importlib.metadata
import re
from typing import Any

project = "omg-transformers"
author = "The omg-transformers maintainers"
release = importlib.metadata.version(project)
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 2
html_theme = "alabaster"
html_theme_options = {"description": "One model for all segmentation", "page_width": "1100px"}
html_show_copyright = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False


def keep_lines(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with code in backticks: keep their lines, and nothing else is markup."""
    lines[:] = [f"| {_escape(line)}" if line.strip() else "" for line in lines] + [""]


def _escape(line: str) -> str:
    parts = re.split(r"(`+[^`]+`+)", line)
    return "".join(
        f"``{part.strip('`')}``" if index % 2 else re.sub(r"([*_|\\`<>])", r"\\\1", part)
        for index, part in enumerate(parts)
    )


def setup(app: Any) -> None:
    """Hook into Sphinx."""
    app.connect("autodoc-process-docstring", keep_lines)
