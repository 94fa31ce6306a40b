"""Points, boxes and masks that a person might give for an object: what heads for prompts ask in training."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from omg_transformers.ops.deepest import deepest_point
from omg_transformers.ops.masks import boxes_of_masks
from omg_transformers.structures import MASK_STRIDE, QueryTargets

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOX_NOISE = 0.05


def choose_targets(target: QueryTargets, count: int, *, is_present: Tensor, generator: torch.Generator) -> QueryTargets:
    """`count` of the targets that are present, in random order, repeated as evenly as possible when there are fewer.

    is_present: (N,) bool. Where none is, there are `count` empty targets of which nothing is known.
    """
    present = is_present.nonzero().flatten().cpu()
    if not len(present):
        shape = target.masks.shape[1:]
        return QueryTargets(
            target.labels.new_full((count,), -1),
            target.masks.new_zeros((count, *shape)),
            target.masks.new_ones(shape),
        )
    rounds = -(-count // len(present))
    order = torch.cat([present[torch.randperm(len(present), generator=generator)] for _ in range(rounds)])[:count]
    order = order.to(target.masks.device)
    return QueryTargets(target.labels[order], target.masks[order], target.unknown)


def mask_prompts(masks: Tensor) -> Tensor:
    """Masks (N, H, W) as prompts (N, H / 4, W / 4): the share of each cell that is inside; empty -> the middle half."""
    height, width = masks.shape[-2:]
    middle = masks.new_zeros((height, width))
    middle[height // 4 : -(-3 * height // 4), width // 4 : -(-3 * width // 4)] = True
    is_empty = ~masks.flatten(1).any(1)
    shown = torch.where(is_empty[:, None, None], middle, masks).float()
    return functional.avg_pool2d(shown[:, None], MASK_STRIDE, ceil_mode=True)[:, 0]


def boxes_around(masks: Tensor, size: tuple[int, int], *, generator: torch.Generator) -> Tensor:
    """Boxes (N, 4) xyxy of masks (N, H, W), each edge off by up to 5 % of the box's side; empty -> the middle half.

    size: (height, width) that the boxes may not leave.
    """
    height, width = size
    boxes = boxes_of_masks(masks).cpu()
    limits = torch.tensor([width, height, width, height], dtype=torch.float32)
    is_empty = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    boxes[is_empty] = limits * torch.tensor([0.25, 0.25, 0.75, 0.75])
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.rand(boxes.shape, generator=generator) * 2 - 1
    return (boxes + noise * BOX_NOISE * sides).clamp(min=0).minimum(limits).to(masks.device)


def points_inside(masks: Tensor, size: tuple[int, int], *, generator: torch.Generator) -> Tensor:
    """Points (N, 2) (x, y) at pixel centres of masks (N, H, W): at the deepest pixel or any; empty -> the middle."""
    middle = (size[1] / 2, size[0] / 2)
    is_deep = (torch.rand(len(masks), generator=generator) < 0.5).tolist()
    places = torch.rand(len(masks), generator=generator).tolist()
    boxes = boxes_of_masks(masks).int().tolist()
    points = []
    for mask, box, deep, place in zip(masks, boxes, is_deep, places, strict=True):
        left, top, right, bottom = box
        inside = mask[top:bottom, left:right].cpu()
        deepest = deepest_point(inside.numpy()) if deep else None
        if not inside.numel():
            points.append(middle)
        elif deepest is not None:
            points.append((left + deepest[0] + 0.5, top + deepest[1] + 0.5))
        else:
            pixels = inside.nonzero()
            y, x = pixels[int(place * len(pixels))].tolist()
            points.append((left + x + 0.5, top + y + 0.5))
    return torch.tensor(points, dtype=torch.float32, device=masks.device).reshape(-1, 2)


def tight_box(mask: Tensor) -> list[float]:
    """The exact box of a mask (H, W), [x1, y1, x2, y2] with x2 and y2 beyond its last pixels; empty -> everything."""
    height, width = mask.shape
    box: list[float] = boxes_of_masks(mask[None])[0].tolist()
    return box if box[2] > box[0] else [0.0, 0.0, float(width), float(height)]


def deep_click(mask: Tensor) -> list[float]:
    """[x, y], the centre of the deepest pixel of a mask (H, W); empty -> the middle."""
    return _pixel_centre(deepest_point(mask.cpu().numpy()), mask)


def drawn_click(mask: Tensor) -> list[float]:
    """[x, y], the centre of a pixel inside a mask (H, W), drawn by what the mask looks like; empty -> the middle."""
    inside: NDArray[np.bool_] = mask.cpu().numpy()
    rows, columns = np.nonzero(inside)
    if not len(rows):
        return _pixel_centre(None, mask)
    chosen = np.random.default_rng(zlib.crc32(np.packbits(inside).tobytes())).integers(len(rows))
    return _pixel_centre((int(columns[chosen]), int(rows[chosen])), mask)


def _pixel_centre(pixel: tuple[int, int] | None, mask: Tensor) -> list[float]:
    height, width = mask.shape
    return [width / 2, height / 2] if pixel is None else [pixel[0] + 0.5, pixel[1] + 0.5]
