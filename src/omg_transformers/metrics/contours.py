"""DAVIS's two measures of one mask: J (region similarity) and F (accuracy of the contour)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Share of the diagonal that a contour may be away (Perazzi et al. 2016).
BOUND_TH = 0.008


@dataclass(frozen=True, slots=True)
class Outline:
    """The contour of a mask: n pixels, and a table that tells whether a stretch of a row holds some of them.

    rows, columns: (n,). counts: running count of contour pixels, row after row, over a box of `shape` around them that
    leaves 2 * `margin` pixels free on every side; it starts at row `top` and column `left` of the picture.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    counts: NDArray[np.int32]
    shape: tuple[int, int]
    top: int
    left: int
    margin: int

    def __len__(self) -> int:
        return len(self.rows)


def contour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The contour of a mask (H, W) as DAVIS draws it: pixels unlike the next one to the right, below or across.

    The border of the picture is no contour.
    """
    edge = np.zeros_like(mask)
    edge[:-1, :-1] = mask[:-1, :-1] ^ mask[:-1, 1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, :-1]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge


def bound_pixels(size: tuple[int, int], bound_th: float = BOUND_TH) -> float:
    """How far a contour may be away in a picture of `size` (height, width), in pixels.

    bound_th: a share of the diagonal, rounded up; a number of pixels when it is at least 1.
    """
    if not bound_th > 0:
        raise ValueError(f"bound_th is {bound_th}: expected a share of the diagonal in (0, 1), or pixels from 1 on")
    return bound_th if bound_th >= 1 else math.ceil(bound_th * float(np.linalg.norm(size)))


def outline(mask: NDArray[np.bool_], reach: float) -> Outline:
    """The outline of a mask (H, W) for `matched` with pixels up to `reach` away."""
    if mask.ndim != 2:
        raise ValueError(f"mask has shape {mask.shape}: expected (H, W); give one frame of a clip at a time")
    mask = np.asarray(mask, dtype=bool)
    rows, columns = _window(mask)
    edge = contour(mask[rows, columns])
    margin = int(reach) + 1
    padded = np.zeros((edge.shape[0] + 4 * margin, edge.shape[1] + 4 * margin), dtype=bool)
    padded[2 * margin : -2 * margin, 2 * margin : -2 * margin] = edge
    flat = padded.ravel()
    places = np.flatnonzero(flat)
    counts = np.cumsum(flat, out=np.empty(flat.size, dtype=np.int32))
    top, left = rows.start - 2 * margin, columns.start - 2 * margin
    width = padded.shape[1]
    found = places // width
    return Outline(found + top, places - found * width + left, counts, padded.shape, top, left, margin)


def matched(outline: Outline, other: Outline, reach: float) -> int:
    """How many pixels of `outline` have a pixel of `other` within a disk of radius `reach`, counted exactly.

    reach: that of both outlines.
    """
    if not len(other):
        return 0
    (height, width), margin = other.shape, other.margin
    rows, columns = outline.rows - other.top, outline.columns - other.left
    near = (rows >= margin) & (rows < height - margin) & (columns >= margin) & (columns < width - margin)
    places = (rows * width + columns)[near]
    missing = len(places)
    # Rows near by first: most pixels are matched there and need no further look.
    for down in sorted(range(-int(reach), int(reach) + 1), key=abs):
        half = math.isqrt(int(reach * reach) - down * down)
        centres = places + down * width
        places = places[other.counts[centres + half] == other.counts[centres - (half + 1)]]
        if not len(places):
            break
    return missing - len(places)


def outline_f(prediction: Outline, truth: Outline, reach: float) -> float:
    """Harmonic mean of the matched shares of two outlines; 1 when both are empty, 0 when one is."""
    if not len(prediction) or not len(truth):
        return float(len(prediction) == len(truth))
    precision = matched(prediction, truth, reach) / len(prediction)
    recall = matched(truth, prediction, reach) / len(truth)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def boundary_f(
    prediction: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    void: NDArray[np.bool_] | None = None,
    *,
    bound_th: float = BOUND_TH,
) -> float:
    """DAVIS's F of two masks (H, W) in [0, 1]; void pixels are cut from both masks first."""
    _require_equal(prediction, truth, void)
    if void is not None:
        prediction, truth = prediction & ~void, truth & ~void
    reach = bound_pixels((prediction.shape[0], prediction.shape[1]), bound_th)
    return outline_f(outline(prediction, reach), outline(truth, reach), reach)


def _window(mask: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The box in which the mask's contour lies: one more pixel on every side, where the picture goes on."""
    rows = np.flatnonzero(mask.any(1))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(0))
    return (
        slice(max(0, int(rows[0]) - 1), min(mask.shape[0], int(rows[-1]) + 2)),
        slice(max(0, int(columns[0]) - 1), min(mask.shape[1], int(columns[-1]) + 2)),
    )


def _require_equal(prediction: NDArray[Any], truth: NDArray[Any], void: NDArray[Any] | None) -> None:
    if prediction.shape != truth.shape or (void is not None and void.shape != truth.shape):
        shapes = f"prediction has shape {prediction.shape}, truth {truth.shape}"
        raise ValueError(f"{shapes}{'' if void is None else f', void {void.shape}'}: they must be equal")
