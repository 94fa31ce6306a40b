"""An optional last step that sharpens each mask around its anchor: what separates neighbouring objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omg_transformers.model.layers import ZeroConvolution

if TYPE_CHECKING:
    from omg_transformers.model.configuration import OMGSegConfig
    from omg_transformers.model.padding import Content

# Share of the picture's longer side: wide enough to cover a small object, narrow enough to tell neighbours apart.
BUMP_WIDTH = 0.08
REACH = 3.0
# Without gradients: masks of one frame. Few queries of many frames are slow again.
MASKS_AT_ONCE = 64
LEAST_QUERIES = 8


class MaskRefinement(nn.Module):
    """A few convolutions per query over: its coarse mask, place relative to the anchor, and reduced mask features.

    They work at half the resolution of the mask, where separating neighbours costs a quarter, and write four
    neighbouring logits per cell.
    """

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        width = config.mask_refinement_size
        self.feature_reduction = nn.Conv2d(config.hidden_size, width, 1)
        self.feature_convolution = nn.Conv2d(width, width, 3, padding=1)
        # Per query: coarse logit, x and y from the anchor, bump at the anchor.
        self.query_convolution = nn.Conv2d(4, width, 3, padding=1, bias=False)
        self.state_projection = nn.Linear(config.hidden_size, width)
        self.middle_convolution = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.output_convolution = ZeroConvolution(width, 4, 3, padding=1)

    def forward(
        self,
        mask_logits: Tensor,
        mask_features: Tensor,
        states: Tensor,
        anchors_xy_norm: Tensor | None,
        content: Content,
    ) -> Tensor:
        """mask_logits: (B, Q, T, h, w). mask_features: (B * T, D, h, w). states: (B, Q, D). Returns refined logits.

        anchors_xy_norm: (B, Q, 2) for the first frame; where there is none, the deepest point of the mask itself.
        """
        batch, _, frames = mask_logits.shape[:3]
        coarse = mask_logits.transpose(1, 2).flatten(0, 1)
        reduced = F.avg_pool2d(self.feature_reduction(mask_features), 2)
        shared = self.feature_convolution(content.zero_padding(reduced))
        anchors = deepest_points(coarse.detach(), content)
        if anchors_xy_norm is not None:
            anchors = anchors.unflatten(0, (batch, frames)).clone()
            anchors[:, 0] = anchors_xy_norm.to(anchors)
            anchors = anchors.flatten(0, 1)
        offset = self.state_projection(states).repeat_interleave(frames, dim=0)
        step = coarse.shape[1]
        if not torch.is_grad_enabled():
            step = max(LEAST_QUERIES, MASKS_AT_ONCE // len(coarse))
        refined = torch.cat(
            [
                self._refine(part, shared, part_anchors, part_offset, content)
                for part, part_anchors, part_offset in zip(
                    coarse.split(step, 1), anchors.split(step, 1), offset.split(step, 1), strict=True
                )
            ],
            dim=1,
        )
        return refined.unflatten(0, (batch, frames)).transpose(1, 2)

    def _refine(self, coarse: Tensor, shared: Tensor, anchors: Tensor, offset: Tensor, content: Content) -> Tensor:
        """coarse: (N, Q, h, w). shared: (N, c, h, w). anchors: (N, Q, 2). offset: (N, Q, c)."""
        queries, half = coarse.shape[1], F.avg_pool2d(coarse.clamp(-10, 10), 2)
        size = (half.shape[-2], half.shape[-1])
        per_query = torch.cat([half[:, :, None] / 4, anchor_maps(anchors, size, content)], dim=2)
        mask = content.mask(size)
        inside = None if mask is None else mask[:, None].expand(-1, queries, -1, -1, -1).flatten(0, 1)

        def clean(features: Tensor) -> Tensor:
            return features if inside is None else features * inside

        hidden = self.query_convolution(clean(per_query.flatten(0, 1))).unflatten(0, (-1, queries))
        hidden = F.relu(hidden + shared[:, None] + offset[..., None, None]).flatten(0, 1)
        hidden = F.relu(self.middle_convolution(clean(hidden)))
        delta = F.pixel_shuffle(self.output_convolution(clean(hidden)), 2).view_as(coarse)
        return content.replicate_edges(coarse + delta)


def anchor_maps(anchors_xy_norm: Tensor, size: tuple[int, int], content: Content) -> Tensor:
    """anchors: (N, Q, 2). Returns (N, Q, 3, h, w): x and y from the anchor, clipped to [-1, 1], and a bump at it."""
    cells = content.extents(size, anchors_xy_norm.device).float()
    longest = cells.amax(-1)[:, None, None]
    y = torch.arange(size[0], device=cells.device) + 0.5 - anchors_xy_norm[..., 1:] * cells[:, None, :1]
    x = torch.arange(size[1], device=cells.device) + 0.5 - anchors_xy_norm[..., :1] * cells[:, None, 1:]
    y, x = y / longest, x / longest
    shape = (*anchors_xy_norm.shape[:2], *size)
    bump = torch.exp(-(y.square()[..., None] + x.square()[..., None, :]) / (2 * BUMP_WIDTH**2))
    reach_x, reach_y = (REACH * x).clamp(-1, 1), (REACH * y).clamp(-1, 1)
    return torch.stack([reach_x[..., None, :].expand(shape), reach_y[..., None].expand(shape), bump], dim=2)


def deepest_points(mask_logits: Tensor, content: Content) -> Tensor:
    """mask_logits: (N, Q, h, w). Returns (N, Q, 2), (x, y) in [0, 1]: where the blurred mask is highest."""
    size = (mask_logits.shape[-2], mask_logits.shape[-1])
    blurred = content.zero_padding(mask_logits.sigmoid())
    for _ in range(2):
        blurred = content.zero_padding(F.avg_pool2d(blurred, 7, stride=1, padding=3))
    best = blurred.flatten(2).argmax(-1)
    cells = content.extents(size, mask_logits.device).float()
    y = (best.div(size[1], rounding_mode="floor") + 0.5) / cells[:, :1]
    x = (best % size[1] + 0.5) / cells[:, 1:]
    return torch.stack([x, y], dim=-1)
