"""The outline of a mask along the edges of its pixels, as one polygon that fills to exactly this mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Point: TypeAlias = tuple[int, int]


def outline_of_mask(mask: NDArray[np.bool_]) -> list[Point]:
    """Corners (x, y) in pixels, from 0 to width and height; [] for an empty mask.

    Holes and pieces are joined by lines that are walked there and back, so that the even-odd rule fills the mask.
    """
    loops = sorted(outlines_of_mask(mask), key=len, reverse=True)
    joined = loops[0] if loops else []
    for loop in loops[1:]:
        here, there = _nearest(joined, loop)
        joined = [*joined[: here + 1], *loop[there:], *loop[: there + 1], *joined[here:]]
    return joined


def outlines_of_mask(mask: NDArray[np.bool_]) -> list[list[Point]]:
    """All closed lines between inside and outside, corners only; pieces that touch at a corner are apart."""
    steps = _edges(mask)
    loops = []
    while steps:
        start = next(iter(steps))
        point, heading, turned = start, (0, 0), steps[start][0]
        corners: list[Point] = []
        while True:
            ways = steps[point]
            # Where two pieces meet at a corner there are two ways: the one that turns right stays on the same piece.
            way = turned if turned in ways else ways[0]
            ways.remove(way)
            if not ways:
                del steps[point]
            if way != heading:
                corners.append(point)
            heading = way
            point = (point[0] + way[0], point[1] + way[1])
            turned = (-heading[1], heading[0])
            if point == start and turned not in steps.get(point, ()):
                break
        loops.append(corners)
    return loops


def _edges(mask: NDArray[np.bool_]) -> dict[Point, list[Point]]:
    """From each corner the unit steps along edges that have the inside on their right (y runs downwards)."""
    padded = np.pad(mask, 1).astype(np.int8)
    steps: dict[Point, list[Point]] = {}
    down = np.diff(padded, axis=0)[:, 1:-1]
    across = np.diff(padded, axis=1)[1:-1]
    for values, sign, way, shift in (
        (down, 1, (1, 0), (0, 0)),
        (down, -1, (-1, 0), (1, 0)),
        (across, -1, (0, 1), (0, 0)),
        (across, 1, (0, -1), (0, 1)),
    ):
        rows, columns = np.nonzero(values == sign)
        for x, y in zip((columns + shift[0]).tolist(), (rows + shift[1]).tolist(), strict=True):
            steps.setdefault((x, y), []).append(way)
    return steps


def _nearest(first: list[Point], second: list[Point]) -> tuple[int, int]:
    one, other = np.array(first), np.array(second)
    distances: NDArray[Any] = np.abs(one[:, None] - other[None]).sum(-1)
    here, there = np.unravel_index(int(distances.argmin()), distances.shape)
    return int(here), int(there)
