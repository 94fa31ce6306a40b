"""An optional step after all others that lets clicks, boxes and given masks correct the masks of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omg_transformers.model.grounding import features_at
from omg_transformers.model.layers import ZeroConvolution, ZeroLinear
from omg_transformers.model.prompt_inputs import INSIDE, OUTSIDE

if TYPE_CHECKING:
    from omg_transformers.model.configuration import OMGSegConfig
    from omg_transformers.model.padding import Content
    from omg_transformers.structures import PromptHints

# Shares of the picture's longer side: one says where exactly, one how far a click speaks.
BUMP_WIDTHS = (0.03, 0.1)
LIKENESS_SIZE = 32
# Coarse logit; per kind of click its bumps and the likeness to what was clicked; mask, likeness to it; box.
NUM_CHANNELS = 1 + 2 * (len(BUMP_WIDTHS) + 1) + 2 + 1
QUERIES_AT_ONCE = 64


class PromptCorrection(nn.Module):
    """A few convolutions per query over its mask and maps of what was said about it, at half the mask's resolution.

    Clicks and masks speak through where they are and through how alike the features elsewhere are. Starts as the
    identity; queries about which nothing more was said are left as they are.
    """

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        width = config.prompt_correction_size
        self.likeness_projection = nn.Conv2d(config.hidden_size, LIKENESS_SIZE, 1, bias=False)
        self.feature_reduction = nn.Conv2d(config.hidden_size, width, 1)
        self.state_projection = nn.Linear(config.hidden_size, width)
        self.map_convolution = nn.Conv2d(NUM_CHANNELS, width, 3, padding=1, bias=False)
        self.middle_convolutions = nn.ModuleList(
            nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation) for dilation in (2, 4)
        )
        self.output_convolution = ZeroConvolution(width, 4, 3, padding=1)
        self.quality_projection = ZeroLinear(width, 1)

    def forward(
        self,
        mask_logits: Tensor,
        iou_logits: Tensor,
        mask_features: Tensor,
        states: Tensor,
        hints: PromptHints,
        content: Content,
    ) -> tuple[Tensor, Tensor]:
        """mask_logits: (B, Q, T, h, w), iou_logits: (B, Q). mask_features: (B * T, D, h, w). states: (B, Q, D).

        hints: of all Q queries. content: of all frames. Returns mask and IoU logits.
        """
        frames = mask_logits.shape[2]
        # Fewer channels first, halved then: means and projections may change places.
        likeness = F.normalize(_halved(self.likeness_projection(mask_features), content), dim=1)
        likeness = likeness.unflatten(0, (-1, frames))
        shared = _halved(self.feature_reduction(mask_features), content).unflatten(0, (-1, frames))
        offsets = self.state_projection(states)
        queries = mask_logits.shape[1]
        step = queries if torch.is_grad_enabled() else QUERIES_AT_ONCE
        masks, qualities = [], []
        for start in range(0, queries, step):
            part = slice(start, start + step)
            maps = torch.cat([_coarse(mask_logits[:, part]), hint_maps(hints, part, likeness, content)], dim=3)
            delta, quality = self._convolve(maps, shared, offsets[:, part], content)
            masks.append(delta)
            qualities.append(quality)
        deltas = content.replicate_edges(torch.cat(masks, dim=1).transpose(1, 2).flatten(0, 1))
        deltas = deltas.unflatten(0, (-1, frames)).transpose(1, 2)
        corrected = torch.where(hints.is_given[..., None, None, None], mask_logits + deltas, mask_logits)
        return corrected, torch.where(hints.is_given, iou_logits + torch.cat(qualities, dim=1), iou_logits)

    def _convolve(self, maps: Tensor, shared: Tensor, offset: Tensor, content: Content) -> tuple[Tensor, Tensor]:
        """maps: (B, Q, T, c, h, w). shared: (B, T, C, h, w). offset: (B, Q, C). Returns (B, Q, T, 2h, 2w), (B, Q)."""
        batch, queries, frames, _, *size = maps.shape
        mask = content.mask((size[0], size[1]))
        if mask is not None:
            mask = mask.view(batch, 1, frames, 1, *size).expand(-1, queries, -1, -1, -1, -1).flatten(0, 2)

        def clean(features: Tensor) -> Tensor:
            return features if mask is None else features * mask

        hidden = self.map_convolution(clean(maps.flatten(0, 2))).unflatten(0, (batch, queries, frames))
        hidden = F.relu(hidden + shared[:, None] + offset[:, :, None, :, None, None]).flatten(0, 2)
        for convolution in self.middle_convolutions:
            hidden = hidden + F.relu(convolution(clean(hidden)))
        hidden = clean(hidden)
        delta = F.pixel_shuffle(self.output_convolution(hidden), 2)[:, 0].unflatten(0, (batch, queries, frames))
        # The mean over the cells of the picture: padding must not change the quality.
        cells = content.extents((size[0], size[1]), maps.device).prod(-1)[:: frames if mask is not None else 1]
        pooled = hidden.sum((-2, -1)).unflatten(0, (batch, queries, frames)).mean(2) / cells[:, None, None]
        return delta, self.quality_projection(pooled)[..., 0]


def _halved(features: Tensor, content: Content) -> Tensor:
    """features: (N, D, h, w). Means of 2 x 2 cells, of those that see the picture."""
    mask = content.mask((features.shape[-2], features.shape[-1]))
    if mask is None:
        return F.avg_pool2d(features, 2)
    shares = F.avg_pool2d(mask.to(features.dtype), 2)
    return F.avg_pool2d(features * mask, 2) / shares.clamp(min=0.25)


def _coarse(mask_logits: Tensor) -> Tensor:
    """(B, Q, T, 1, h / 2, w / 2)."""
    halved = F.avg_pool2d(mask_logits.detach().clamp(-10, 10).flatten(0, 1), 2)
    return halved.unflatten(0, mask_logits.shape[:2])[:, :, :, None] / 4


def hint_maps(hints: PromptHints, part: slice, likeness: Tensor, content: Content) -> Tensor:
    """What was said about the queries of `part` as maps (B, Q, T, c, h, w), zero where nothing was.

    likeness: (B, T, C, h, w) unit vectors. Places count in the first frame, likeness in all.
    """
    frames, _, height, width = likeness.shape[1:]
    points, labels = hints.points_xy_norm[:, part], hints.point_labels[:, part]
    extents = content.extents((height, width), likeness.device)[:: frames if content.sizes is not None else 1]
    extents = extents.to(likeness.dtype)
    y, x = (torch.arange(count, device=likeness.device) + 0.5 for count in (height, width))
    first = likeness[:, 0]
    maps = []
    for kind in (INSIDE, OUTSIDE):
        is_kind = labels == kind
        bumps = _bumps(points, is_kind, x, y, extents)
        of_points = features_at(first, points, extents)
        alike = torch.einsum("bqpc,btchw->bqpthw", of_points, likeness)
        alike = torch.where(is_kind[..., None, None, None], alike, -1.0).amax(2)
        alike = alike * is_kind.any(-1)[..., None, None, None]
        maps += [_in_first_frame(bumps, frames), alike[:, :, :, None]]
    maps += _mask_maps(hints, part, likeness)
    boxes = hints.boxes_xyxy_norm[:, part]
    corners = boxes * extents.flip(-1).repeat(1, 2)[:, None]
    is_across = (x > corners[..., :1]) & (x < corners[..., 2:3])
    is_down = (y > corners[..., 1:2]) & (y < corners[..., 3:])
    inside = (is_down[..., None] & is_across[..., None, :]).to(likeness.dtype) * 2 - 1
    inside = inside * (~boxes.isnan().any(-1))[..., None, None]
    maps.append(_in_first_frame(inside[:, :, None], frames))
    return torch.cat([item.to(likeness.dtype) for item in maps], dim=3)


def _bumps(points: Tensor, is_kind: Tensor, x: Tensor, y: Tensor, extents: Tensor) -> Tensor:
    """(B, Q, widths, h, w): 1 at the points of a kind, falling off around them."""
    places, longest = points * extents.flip(-1)[:, None, None], extents.amax(-1)[:, None, None, None]
    across, down = (x - places[..., :1]) / longest, (y - places[..., 1:]) / longest
    distances = down.square()[..., None] + across.square()[..., None, :]
    nearest = torch.where(is_kind[..., None, None], distances, torch.inf).amin(2)
    return torch.stack([torch.exp(-nearest / (2 * width**2)) for width in BUMP_WIDTHS], dim=2)


def _mask_maps(hints: PromptHints, part: slice, likeness: Tensor) -> list[Tensor]:
    batch, frames, _, height, width = likeness.shape
    has_mask = hints.has_mask[:, part, None, None, None]
    if hints.masks is None:
        return [likeness.new_zeros((batch, has_mask.shape[1], frames, 2, height, width))]
    masks = F.avg_pool2d(hints.masks[:, part].to(likeness.dtype), 2)
    means = torch.einsum("bqhw,bchw->bqc", masks, likeness[:, 0])
    alike = torch.einsum("bqc,btchw->bqthw", F.normalize(means, dim=-1), likeness) * has_mask
    signed = (2 * masks - 1)[:, :, None] * has_mask
    return [_in_first_frame(signed, frames), alike[:, :, :, None]]


def _in_first_frame(maps: Tensor, frames: int) -> Tensor:
    """(B, Q, c, h, w) to (B, Q, T, c, h, w), zeros after the first frame."""
    return F.pad(maps[:, :, None], (0, 0, 0, 0, 0, 0, 0, frames - 1))
