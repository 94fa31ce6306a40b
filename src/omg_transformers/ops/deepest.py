"""How deep inside a mask each pixel lies, and the deepest of them: where a person would click."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_cdt

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Smooth-minimum width of the convolutional distance transform (Pham et al. 2021), which the original relies on.
SMOOTHNESS = 0.35


def mask_depths(mask: NDArray[np.bool_]) -> NDArray[Any]:
    """Approximate distance of each pixel of a mask (H, W) to the outside, in pixels: (H, W) float64, 0 outside.

    What lies beyond the array is outside. The mask is peeled ring by ring; within its ring a pixel is the deeper the
    fewer of its eight neighbours were peeled before. Equals the original's cascade of convolutions, in one pass.
    """
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}: expected (H, W); give one frame of a clip at a time")
    depths = np.zeros(mask.shape)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return depths
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    rings = distance_transform_cdt(np.pad(np.asarray(mask[window]) != 0, 1), metric="chessboard")
    own = rings[1:-1, 1:-1]
    height, width = own.shape
    peeled = np.zeros(own.shape)
    for down in range(3):
        for across in range(3):
            is_peeled = rings[down : down + height, across : across + width] < own
            peeled += is_peeled * np.exp(-np.hypot(down - 1, across - 1) / SMOOTHNESS)
    inside = own > 0
    depths[window][inside] = own[inside] - 1 - SMOOTHNESS * np.log(peeled[inside])
    return depths


def deepest_point(mask: NDArray[np.bool_]) -> tuple[int, int] | None:
    """(x, y) of the pixel of a mask (H, W) that is deepest inside, the first of equals; None for an empty mask."""
    depths = mask_depths(mask)
    row, column = divmod(int(depths.argmax()), mask.shape[1]) if depths.size else (0, 0)
    return (column, row) if depths.size and depths[row, column] > 0 else None
