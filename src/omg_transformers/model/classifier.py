"""Names for queries: pooled features against text embeddings, with the CLIP backbone's own opinion on unseen names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.model.configuration import OMGSegConfig


class PredictionHead(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(hidden_size, size) for size in (hidden_size, hidden_size, output_size))

    def forward(self, features: Tensor) -> Tensor:
        """(..., D) to (..., output size)."""
        for layer in self.layers[:-1]:
            features = F.relu(layer(features))
        return self.layers[-1](features)


class TextClassifier(nn.Module):
    """Cosine between what a query found and the embeddings of the class names."""

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        self.logit_scale = config.logit_scale
        self.pooled_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooled_projection = nn.Linear(config.hidden_size, config.hidden_size)
        self.text_projection = PredictionHead(config.hidden_size, config.text_dim)

    def forward(self, states: Tensor, mask_logits: Tensor, mask_features: Tensor, class_embeds: Tensor) -> Tensor:
        """states: (B, Q, D), normed. mask_logits: (B, Q, N), < 0 in padding. mask_features: (B, D, N).

        class_embeds: (K, P, text_dim). Returns class logits (B, Q, K + 1), void last.
        """
        pooled = mean_where(mask_features, mask_logits > 0).to(states.dtype)
        embeds = self.text_projection(states + self.pooled_projection(self.pooled_norm(pooled)))
        return class_logits(embeds, class_embeds, self.logit_scale)


class BackboneNames(nn.Module):
    """A second opinion on names: what the backbone's last two maps hold inside a mask, by one linear layer.

    The maps are read as they are, no gradient goes back into them: what a backbone learned from a million pictures
    names things better than what a decoder learns from few.
    """

    # On 100 pictures a classifier without it learns them by heart (docs/LOG.md).
    DROPOUT = 0.5

    def __init__(self, channels: int, config: OMGSegConfig) -> None:
        super().__init__()
        self.logit_scale = config.logit_scale
        self.norm = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(self.DROPOUT)
        self.projection = nn.Linear(channels, config.text_dim)

    @staticmethod
    def join(maps: Sequence[Tensor]) -> Tensor:
        """A backbone's maps to one (N, C, H / 16, W / 16). Cells are repeated, not blended: padding stays outside."""
        return torch.cat([maps[-2], F.interpolate(maps[-1], scale_factor=2, mode="nearest")], dim=1).detach()

    def forward(self, name_map: Tensor, mask_logits: Tensor, class_embeds: Tensor) -> Tensor:
        """name_map: (B, C, T, H / 16, W / 16). mask_logits: (B, Q, T, H / 4, W / 4), < 0 in padding.

        class_embeds: (K, P, text_dim). Returns class logits (B, Q, K), all 0 for an empty mask.
        """
        shares = F.avg_pool3d((mask_logits > 0).float(), (1, 4, 4)).flatten(2)
        pooled = mean_where(name_map.flatten(2), shares).to(name_map.dtype)
        embeds = self.projection(self.dropout(self.norm(pooled)))
        return class_logits(embeds, class_embeds, self.logit_scale)[..., :-1] * shares.any(-1, keepdim=True)


def class_logits(embeds: Tensor, class_embeds: Tensor, logit_scale: float) -> Tensor:
    """embeds: (B, Q, D). class_embeds: (K, P, D) unit vectors. Returns (B, Q, K + 1), best of P synonyms, void 0."""
    classes, prototypes, width = class_embeds.shape
    cosines = F.normalize(embeds.float(), dim=-1) @ class_embeds.float().view(-1, width).T
    logits = logit_scale * cosines.view(*embeds.shape[:-1], classes, prototypes).amax(-1)
    # The original keeps a zero vector as the void class: its cosine is 0.
    return F.pad(logits, (0, 1))


def mean_where(features: Tensor, mask: Tensor) -> Tensor:
    """features: (B, D, N). mask: (B, Q, N) bool, or shares of cells. Returns (B, Q, D): the mean over each mask, zeros
    where it is empty.

    In float32: in half precision areas above 65504 overflow and the 1e-8 of the original vanishes.
    """
    with torch.autocast(features.device.type, enabled=False):
        weights = mask.float()
        return weights @ features.float().transpose(1, 2) / (weights.sum(-1, keepdim=True) + 1e-8)


def fuse_open_vocabulary(
    decoder_logits: Tensor,
    clip_logits: Tensor,
    is_seen: Tensor,
    is_pooled: Tensor,
    *,
    seen_exponent: float,
    unseen_exponent: float,
) -> Tensor:
    """The decoder's and CLIP's opinions as one (FC-CLIP, eq. 8): log probabilities (B, Q, K + 1).

    decoder_logits, clip_logits: (B, Q, K + 1), void last. is_seen: (K,) bool: trained classes trust the decoder more.
    is_pooled: (B, Q) bool, False where the mask is too small for CLIP's map: there the decoder decides alone.
    """
    exponent = torch.where(is_seen, seen_exponent, unseen_exponent) * is_pooled[..., None]
    return fuse_opinions(decoder_logits, clip_logits[..., :-1], exponent)


def fuse_opinions(decoder_logits: Tensor, other_logits: Tensor, exponent: Tensor | float) -> Tensor:
    """Geometric mean of two class probabilities; `exponent`, which broadcasts, is the weight of the other's.

    decoder_logits: (B, Q, K + 1), void last. other_logits: (B, Q, K). Returns log probabilities (B, Q, K + 1). The
    decoder alone decides on void. Finite where the original gives NaN, since it multiplies logarithms instead of taking
    the logarithm of products.
    """
    decoder_logs = decoder_logits[..., :-1].float().log_softmax(-1)
    other_logs = other_logits.float().log_softmax(-1)
    fused = ((1 - exponent) * decoder_logs + exponent * other_logs).softmax(-1)
    void = decoder_logits.float().softmax(-1)[..., -1:]
    return (torch.cat([fused * (1 - void), void], dim=-1) + 1e-8).log()


def sum_clip_features(clip_map: Tensor, mask_logits: Tensor, is_content: Tensor | None) -> tuple[Tensor, Tensor]:
    """clip_map: (B, T, C, h, w) last backbone map. mask_logits: (B, Q, T, H, W). is_content: (B or 1, 1, T * h * w).

    Returns the sums over masks (B, Q, C) and their areas in cells (B, Q), float32: of clip after clip they add up.
    """
    size = clip_map.shape[-2:]
    small = F.interpolate(mask_logits.flatten(1, 2), size=size, mode="bilinear", align_corners=False)
    mask = (small.view(*mask_logits.shape[:3], *size) > 0).flatten(2)
    if is_content is not None:
        mask = mask & is_content
    with torch.autocast(clip_map.device.type, enabled=False):
        cells = clip_map.transpose(1, 2).flatten(2).float()
        return mask.float() @ cells.transpose(1, 2), mask.sum(-1).float()


def pool_clip_features(clip_map: Tensor, mask_logits: Tensor, is_content: Tensor | None) -> tuple[Tensor, Tensor]:
    """The means over masks (B, Q, C), zeros where they are empty, and whether any cell was inside (B, Q).

    Arguments as for `sum_clip_features`.
    """
    sums, areas = sum_clip_features(clip_map, mask_logits, is_content)
    return sums / (areas[..., None] + 1e-8), areas > 0
