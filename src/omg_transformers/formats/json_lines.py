"""A file of JSON lines, written as it goes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from omg_transformers.formats.atomic_file import PartFile

if TYPE_CHECKING:
    from pathlib import Path


class JsonLines:
    """Grows under a hidden name; `close` puts it in its place with what was added. One line is one write."""

    def __init__(self, path: str | Path) -> None:
        self._part = PartFile(path)
        self._stream = self._part.path.open("xb", buffering=0)

    def add(self, content: Any) -> None:
        """Append one line."""
        self._stream.write(json.dumps(content, ensure_ascii=False).encode() + b"\n")

    def close(self) -> Path:
        """Complete the file."""
        self._stream.close()
        return self._part.finish()
