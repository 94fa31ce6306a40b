"""DAVIS's PNGs: the id of the object at each pixel, with the palette that its tools show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from omg_transformers.formats.atomic_file import write_png
from omg_transformers.ops.masks import decode_rle

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from omg_transformers.structures import Segments

MAX_ID = 255


def write_davis_png(path: str | Path, segments: Segments, *, frame: int = 0) -> Path:
    """Write one frame, 0 = background. Where masks overlap, the one with the highest score is seen.

    ValueError: an id above 255, which the format cannot hold.
    """
    image = Image.fromarray(object_map(segments, frame=frame))
    image.putpalette(davis_palette().tobytes())
    return write_png(path, image)


def object_map(segments: Segments, *, frame: int = 0) -> NDArray[np.uint8]:
    """The id of the object at each pixel (H, W), 0 = background."""
    largest = max(segments.ids.tolist(), default=0)
    if largest > MAX_ID:
        raise ValueError(f"an object has the id {largest}: DAVIS's PNGs hold 1 to {MAX_ID}; choose another format")
    if segments.id_map is not None:
        return segments.id_map[frame].cpu().numpy().astype(np.uint8)
    ids = np.zeros(segments.size, np.uint8)
    for index in segments.scores.argsort(stable=True).tolist():
        rle = None if segments.rles is None else segments.rles[index][frame]
        if rle is not None:
            ids[decode_rle(rle).numpy()] = int(segments.ids[index])
    return ids


def davis_palette() -> NDArray[np.uint8]:
    """256 colours (256, 3): PASCAL VOC's, the bits of the id spread over the high bits of red, green and blue."""
    ids = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= ((ids >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return palette
