"""An optional first step for prompts: the query starts from what the picture shows where the prompt points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omg_transformers.model.layers import ZeroLinear

if TYPE_CHECKING:
    from omg_transformers.model.configuration import OMGSegConfig
    from omg_transformers.model.padding import Content

# Features are read on a grid over the middle of the region: the object is there, its surroundings hardly.
GRID, MIDDLE = 5, 0.6


class PromptGrounding(nn.Module):
    """Adds the mean of the mask features inside a region to the content of its query. Starts as no change."""

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        self.projection = ZeroLinear(config.hidden_size, config.hidden_size)

    def forward(self, mask_features: Tensor, regions_xyxy_norm: Tensor, content: Content) -> Tensor:
        """mask_features: (B, D, h, w) of the first frames. regions: (B, Q, 4) in [0, 1]. Returns (B, Q, D)."""
        shares = 0.5 + MIDDLE * (torch.arange(GRID, device=regions_xyxy_norm.device) + 0.5 - GRID / 2) / GRID
        corner, extent = regions_xyxy_norm[..., :2], regions_xyxy_norm[..., 2:] - regions_xyxy_norm[..., :2]
        places = torch.stack(torch.meshgrid(shares, shares, indexing="xy"), dim=-1).flatten(0, 1)
        points = corner[:, :, None] + places * extent[:, :, None]
        extents = content.extents((mask_features.shape[-2], mask_features.shape[-1]), mask_features.device)
        found: Tensor = self.projection(features_at(mask_features, points, extents.to(mask_features)).mean(2))
        return found


def features_at(features: Tensor, points_xy_norm: Tensor, extents: Tensor) -> Tensor:
    """features: (B, C, h, w). points: (B, Q, P, 2) in [0, 1] of the picture. Returns (B, Q, P, C), bilinear.

    extents: (B or 1, 2) rows and columns of the map that see the picture, float.
    """
    size = features.new_tensor([features.shape[-1], features.shape[-2]])
    # Between the middles of the first and the last cell: what lies beyond is padding.
    limits = extents.flip(-1)[:, None, None] - 0.5
    grid = (points_xy_norm.to(size) * extents.flip(-1)[:, None, None]).clamp(min=0.5).minimum(limits) / size * 2 - 1
    found = F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found.permute(0, 2, 3, 1)
