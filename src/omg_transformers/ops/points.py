"""Sampling of maps at points, and the choice of points where a mask is least certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

# Where random numbers come from: one generator for everything, or one per row.
Chance: TypeAlias = "torch.Generator | Sequence[torch.Generator] | None"


def sample_at_points(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points; outside the map is 0.

    maps: (N, C, h, w) float. points: (N, P, 2), (x, y) in [0, 1] of the map, pixel centres at (i + 0.5) / w.
    Returns (N, C, P). Points of shape (1, P, 2) are used for every map.
    """
    if maps.ndim != 4 or points.ndim != 3 or points.shape[-1] != 2:
        raise ValueError(
            f"maps must be (N, C, h, w) and points (N, P, 2), got {tuple(maps.shape)} and {tuple(points.shape)}"
        )
    if points.shape[0] == 1 and len(maps) != 1:
        # One set of points for all maps: fold the maps into channels, so that the grid is not repeated.
        sampled = sample_at_points(maps.flatten(0, 1)[None], points)[0]
        return sampled.view(*maps.shape[:2], points.shape[1])
    if points.shape[0] != len(maps):
        raise ValueError(
            f"points are given for {points.shape[0]} maps but there are {len(maps)}: give 1 set or one each"
        )
    grid = (2.0 * points - 1.0)[:, :, None, :].to(maps.dtype)
    if not len(maps) or not maps.shape[1]:
        return maps.new_zeros(*maps.shape[:2], points.shape[1]) + 0.0 * maps.sum()
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)[..., 0]


def random_points(
    num_sets: int, num_points: int, *, generator: Chance = None, device: torch.device | None = None
) -> Tensor:
    """Uniform points: (num_sets, num_points, 2) in [0, 1), drawn on the generator's device, then moved to `device`.

    generator: one for all sets, or one for each.
    """
    if isinstance(generator, Sequence):
        if not generator:
            return torch.zeros(0, num_points, 2, device=device)
        drawn = [torch.rand(num_points, 2, generator=own, device=own.device) for own in generator]
        return torch.stack(drawn).to(device)
    source = generator.device if generator is not None else device
    return torch.rand(num_sets, num_points, 2, generator=generator, device=source).to(device)


def uncertain_points(
    logits: Tensor,
    num_points: int,
    *,
    oversample_ratio: float = 3.0,
    importance_ratio: float = 0.75,
    is_unknown: Tensor | None = None,
    generator: Chance = None,
) -> Tensor:
    """Points where masks are least certain: (N, num_points, 2) in [0, 1], without gradient (PointRend, sec. 4.3).

    logits: (N, 1, h, w). `importance_ratio` of the points are the most uncertain of `oversample_ratio * num_points`
    draws, the rest are uniform. is_unknown: (N, 1, h, w) float, above 0 where logits may not steer the choice.
    """
    if oversample_ratio < 1.0:
        raise ValueError(
            f"oversample_ratio is {oversample_ratio}: it must be at least 1, fewer draws cannot be chosen from"
        )
    if not 0.0 <= importance_ratio <= 1.0:
        raise ValueError(f"importance_ratio is {importance_ratio}: it is a share between 0 and 1")
    num_draws, num_important = int(num_points * oversample_ratio), int(num_points * importance_ratio)
    draws = random_points(len(logits), num_draws, generator=generator, device=logits.device)
    uncertainty = -sample_at_points(logits.detach().float(), draws)[:, 0].abs()
    if is_unknown is not None:
        uncertainty = uncertainty.masked_fill(sample_at_points(is_unknown.float(), draws)[:, 0] > 0, -torch.inf)
    order = uncertainty.topk(num_important, dim=1).indices
    important = draws.gather(1, order[..., None].expand(-1, -1, 2))
    rest = random_points(len(logits), num_points - num_important, generator=generator, device=logits.device)
    return torch.cat([important, rest], dim=1)
