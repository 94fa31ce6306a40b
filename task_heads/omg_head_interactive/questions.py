"""Points and boxes that a person might give for a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from omg_transformers.ops.deepest import deepest_point
from omg_transformers.ops.masks import boxes_of_masks

BOX_NOISE = 0.05


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
