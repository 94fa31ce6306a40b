"""Where a person would point at an object, and masks had from that without looking at the picture.

Shared by default_model.py, prompts.py and video.py; measures nothing by itself. Masks are (H, W) bool tensors, points
(x, y) and boxes (x1, y1, x2, y2) in pixels, whose centres are at i + 0.5.
"""

from __future__ import annotations

import numpy as np
import torch

from omg_transformers.ops.deepest import deepest_point
from omg_transformers.ops.masks import decode_rle, rle_area

MIN_AREA_SHARE = 0.01


def large_things(annotation) -> list[torch.Tensor]:
    """Masks (H, W) of single things that cover more than the least share of the picture."""
    least = MIN_AREA_SHARE * annotation.size[0] * annotation.size[1]
    return [
        decode_rle(segment.masks[0])
        for segment in annotation.segments
        if annotation.is_thing[segment.category_id] and not segment.is_crowd and rle_area(segment.masks[0]) > least
    ]


def iou(first: torch.Tensor, second: torch.Tensor) -> float:
    union = (first | second).sum()
    return float((first & second).sum() / union) if union else 0.0


def box_of(mask: torch.Tensor) -> np.ndarray:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def point_of(kind: str, mask: torch.Tensor, rng: np.random.Generator) -> np.ndarray:
    """kind: "deepest point" or "random point"."""
    if kind == "deepest point":
        return np.array(deepest_point(mask.numpy())) + 0.5
    rows, columns = np.nonzero(mask.numpy())
    chosen = rng.integers(len(rows))
    return np.array([columns[chosen], rows[chosen]]) + 0.5


def filled_box(box: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    x, y = _centres(size)
    left, top, right, bottom = box
    return (x > left) & (x < right) & (y > top) & (y < bottom)


def ellipse_in(box: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    x, y = _centres(size)
    left, top, right, bottom = box
    across, down = (right - left) / 2, (bottom - top) / 2
    return ((x - left - across) / across) ** 2 + ((y - top - down) / down) ** 2 < 1


def disk_at(point: np.ndarray, area_share: float, size: tuple[int, int]) -> torch.Tensor:
    """area_share: of the picture."""
    x, y = _centres(size)
    return (x - point[0]) ** 2 + (y - point[1]) ** 2 < area_share * size[0] * size[1] / np.pi


def _centres(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(size[1])[None] + 0.5, torch.arange(size[0])[:, None] + 0.5
