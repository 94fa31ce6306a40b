"""Annotation files in JSON: read whole with precise errors, or only searched for a few words."""

from __future__ import annotations

import json
import mmap
import re
from typing import TYPE_CHECKING, Any

from omg_transformers.data.sources import SampleError
from omg_transformers.formats.atomic_file import read_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TEXT = re.compile(rb'\s*:\s*("(?:[^"\\]|\\.)*")')


def read_object(path: Path, keys: Iterable[str], *, title: str) -> dict[str, Any]:
    """The JSON object at `path`, which must have `keys`. title: the kind of file, for errors.

    Raises FileNotFoundError, or ValueError when it was cut short or is of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected the {title} file there")
    content = read_json(path)
    missing = sorted(set(keys) - set(content)) if isinstance(content, dict) else sorted(keys)
    if missing:
        raise ValueError(f"{path} has no {missing}: it is no {title} file")
    return dict(content)


def read_sample_object(path: Path, keys: Iterable[str], *, title: str) -> dict[str, Any]:
    """As `read_object`, for a file that describes one sample: raises SampleError."""
    try:
        return read_object(path, keys, title=title)
    except (OSError, ValueError) as error:
        raise SampleError(str(error)) from error


def mentions(path: Path, *words: str) -> bool:
    """Whether all words stand somewhere in the file. Nothing is parsed or copied, so large files are no trouble."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return all(content.find(word.encode()) >= 0 for word in words)
    except (OSError, ValueError):  # ValueError: an empty file cannot be mapped
        return False


def first_text(path: Path, key: str) -> str | None:
    """The text of the first `key` in the file; None without one."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(f'"{key}"'.encode())
        found = None if place < 0 else _TEXT.match(content[place + len(key) + 2 : place + 4096])
    try:
        return None if found is None else str(json.loads(found[1]))
    except ValueError:
        return None
