"""Where a name fits: the deepest point of a mask, and free places around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[int, int, int, int]
Window = tuple[slice, slice]

# Distances are measured on a mask reduced to this many pixels a side: names need no pixel's precision.
MEASURED_SIDE = 192


def deepest_point(mask: NDArray[np.bool_]) -> tuple[int, int, float] | None:
    """(x, y) farthest from the outside of the mask and of the picture, and that distance; None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    step = max(1, -(-max(window.shape) // MEASURED_SIDE))
    reduced = window[step // 2 :: step, step // 2 :: step]
    if not reduced.any():
        step, reduced = 1, window
    depth: NDArray[Any] = ndimage.distance_transform_edt(np.pad(reduced, 1))[1:-1, 1:-1]
    # Of a long shape's many deep points, the middle one.
    deep = np.argwhere(depth >= 0.95 * depth.max())
    row, column = deep[((deep - deep.mean(0)) ** 2).sum(1).argmin()]
    offset = step // 2 if step > 1 else 0
    x, y = int(columns[0]) + int(column) * step + offset, int(rows[0]) + int(row) * step + offset
    return x, y, float(depth.max()) * step


def free_place(
    center: tuple[int, int],
    size: tuple[int, int],
    taken: list[Box],
    part: tuple[Window, NDArray[np.bool_]],
    canvas: tuple[int, int],
) -> Box | None:
    """A box (x1, y1, x2, y2) of `size` (width, height) at `center`, or above or below it, clear of `taken`.

    part: the window of a mask in a picture of `canvas` (height, width), and the mask there; center: (x, y) in it.
    The box stays inside the picture and its middle inside the mask. None: there is no such place near.
    """
    (rows, columns), mask = part
    width, height = size
    for shift in (0, -1.1, 1.1, -2.2, 2.2):
        left = min(max(columns.start + center[0] - width // 2, 0), canvas[1] - width)
        top = round(rows.start + center[1] - height / 2 + shift * height)
        top = min(max(top, 0), canvas[0] - height)
        if left < 0 or top < 0:
            return None
        middle = top + height // 2 - rows.start
        is_inside = shift == 0 or (0 <= middle < len(mask) and mask[middle, center[0]])
        box = (left, top, left + width, top + height)
        if is_inside and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
