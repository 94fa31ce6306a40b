"""PNGs that hold one whole number per pixel, and folders of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

# Pillow opens 16-bit PNGs as "I" or "I;16", depending on its version.
MODES_8_BIT = ("P", "L")
MODES = (*MODES_8_BIT, "1", "I", "I;16")
NUM_LISTED = 5


def read_label_png(path: str | Path, modes: Iterable[str] = MODES) -> NDArray[np.integer]:
    """The values (H, W) of a PNG with a palette or one channel, as they are stored: uint8, or int32 where deeper.

    modes: of Pillow, the others are refused. Raises ValueError naming the file.
    """
    try:
        with Image.open(path) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path} is missing or not a readable PNG ({error})") from error
    modes = tuple(modes)
    if mode not in modes:
        depth = "8-bit channel" if modes == MODES_8_BIT else "channel"
        raise ValueError(
            f"{path} has mode {mode}: expected one whole number per pixel, a PNG with a palette or one {depth}"
        )
    return values.astype(np.uint8 if values.dtype.itemsize == 1 else np.int32, copy=False)


def pngs_of(folder: Path, *, recursive: bool = False) -> dict[str, Path]:
    """The PNGs of a folder by name without suffix, sorted; in deeper folders, too, when recursive ("a/b" then)."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*") if recursive else folder.iterdir()):
        if path.suffix.lower() != ".png" or path.name.startswith(".") or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{folder} holds both {found[name].name} and {path.name}: keep one")
        found[name] = path
    return found


def describe_folder(path: Path) -> str:
    """What is there, for errors: "a folder with 3 .png, 2 folders (a, b)"."""
    if path.is_file():
        return f"a file ({path.suffix or 'without suffix'})"
    if not path.is_dir():
        return "not there"
    folders = [entry.name for entry in sorted(path.iterdir()) if entry.is_dir()]
    kinds = Counter(entry.suffix.lower() or entry.name for entry in path.iterdir() if entry.is_file())
    parts = [f"{count} {kind}" for kind, count in kinds.most_common(3)]
    if folders:
        parts.append(f"{len(folders)} folder{'s' * (len(folders) > 1)} ({listed(folders)})")
    return f"a folder with {', '.join(parts)}" if parts else "an empty folder"


def require_folder(path: Path, name: str, expected: str) -> Path:
    """Refuse what is no folder: says what was found in its place. name: of the argument."""
    if not path.is_dir():
        raise ValueError(f"{name} {path} is {describe_folder(path)}: expected {expected}")
    return path


def listed(names: Iterable[object]) -> str:
    """The first names, then how many more there are."""
    texts = [str(name) for name in names]
    more = len(texts) - NUM_LISTED
    return ", ".join(texts[:NUM_LISTED]) + (f" and {more} more" if more > 0 else "")
