"""Masked-attention query decoder (Mask2Former, sec. 3.2) over pictures and clips."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from omg_transformers.model.classifier import BackboneNames, PredictionHead, TextClassifier
from omg_transformers.model.correction import PromptCorrection
from omg_transformers.model.grounding import PromptGrounding
from omg_transformers.model.pixel_decoder import NUM_LEVELS
from omg_transformers.model.positions import cell_positions, frame_positions
from omg_transformers.model.refinement import MaskRefinement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.model.configuration import OMGSegConfig
    from omg_transformers.model.padding import Content
    from omg_transformers.structures import PromptHints, Queries


@dataclass(frozen=True, slots=True)
class ImageFeatures:
    """All that the decoder needs to know of a batch of clips: computed once, asked any number of times.

    mask_features: (B * T, D, h, w) at stride 4. levels: for stride 32, 16 and 8: see `Level`.
    clip_map: (B, T, C, H / 32, W / 32) last map of the backbone. content: picture sizes, per clip.
    name_map: (B * T, C, H / 16, W / 16) what `BackboneNames` reads, or None.
    """

    mask_features: Tensor
    levels: tuple[Level, ...]
    clip_map: Tensor
    content: Content
    num_frames: int
    name_map: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.clip_map)

    def flat_mask_features(self) -> Tensor:
        """(B, D, T * h * w)."""
        return self.mask_features.unflatten(0, (-1, self.num_frames)).transpose(1, 2).flatten(2)


@dataclass(frozen=True, slots=True)
class Level:
    """One memory of a clip, N = T * h * w cells.

    keys, values: (B, N, D), with and without positions. mask_features: (B, D, N) resized to this level.
    is_content: (B, N) bool or None. Resizing and reading masks are both linear, so masks for attention come from
    features resized once, not from full masks resized at every layer.
    """

    keys: Tensor
    values: Tensor
    mask_features: Tensor
    is_content: Tensor | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the decoder says after one of its layers.

    class_logits: (B, Q, K + 1) or None. mask_logits: (B, Q, T, h, w). iou_logits: (B, Q).
    backbone_class_logits: (B, Q, K) opinion of `BackboneNames`, on the last prediction alone.
    """

    class_logits: Tensor | None
    mask_logits: Tensor
    iou_logits: Tensor
    backbone_class_logits: Tensor | None = None


class Attention(nn.Module):
    """Multi-head attention; one boolean mask serves all heads."""

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, is_visible: Tensor | None) -> Tensor:
        """queries: (B, Q, D). keys, values: (B, N, D). is_visible: (B or 1, 1, Q, N) bool or None."""
        split = (self.num_heads, -1)
        attended = F.scaled_dot_product_attention(
            self.q_proj(queries).unflatten(-1, split).transpose(1, 2),
            self.k_proj(keys).unflatten(-1, split).transpose(1, 2),
            self.v_proj(values).unflatten(-1, split).transpose(1, 2),
            attn_mask=is_visible,
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class QueryDecoderLayer(GradientCheckpointingLayer):
    """Cross-attention, self-attention, feed-forward net; a norm after each."""

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        self.cross_attention = Attention(config)
        self.cross_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attention = Attention(config)
        self.self_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.decoder_ffn_size)
        self.fc2 = nn.Linear(config.decoder_ffn_size, config.hidden_size)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, states: Tensor, positions: Tensor, keys: Tensor, values: Tensor, is_visible: Tensor, is_isolated: bool
    ) -> Tensor:
        """states, positions: (B, Q, D)."""
        states = self.cross_attention_norm(states + self.cross_attention(states + positions, keys, values, is_visible))
        if is_isolated:
            # Attention to oneself alone is the value itself.
            attended = self.self_attention.out_proj(self.self_attention.v_proj(states))
        else:
            asked = states + positions
            attended = self.self_attention(asked, asked, states, None)
        states = self.self_attention_norm(states + attended)
        return self.ffn_norm(states + self.fc2(F.relu(self.fc1(states))))


class QueryDecoder(nn.Module):
    """Turns queries into masks, classes and mask qualities."""

    def __init__(self, backbone_channels: Sequence[int], config: OMGSegConfig) -> None:
        super().__init__()
        self.hidden_size = config.hidden_size
        self.layers = nn.ModuleList(QueryDecoderLayer(config) for _ in range(config.decoder_layers))
        self.level_embedding = nn.Embedding(NUM_LEVELS, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mask_head = PredictionHead(config.hidden_size, config.hidden_size)
        self.iou_head = PredictionHead(config.hidden_size, 1)
        self.classifier = TextClassifier(config)
        self.backbone_names = BackboneNames(sum(backbone_channels[-2:]), config) if config.backbone_names else None
        self.grounding = PromptGrounding(config) if config.prompt_grounding else None
        self.refinement = MaskRefinement(config) if config.mask_refinement else None
        self.correction = PromptCorrection(config) if config.prompt_correction else None

    def prepare(
        self,
        mask_features: Tensor,
        memories: list[Tensor],
        clip_map: Tensor,
        content: Content,
        num_frames: int,
        name_map: Tensor | None = None,
    ) -> ImageFeatures:
        """mask_features, memories, clip_map, name_map: (B * T, ., h, w). content: per clip."""
        of_frames = content.repeat(num_frames)
        times = frame_positions(num_frames, self.hidden_size, mask_features.device)
        levels = []
        for memory, embedding in zip(memories, self.level_embedding.weight, strict=True):
            size = (memory.shape[-2], memory.shape[-1])
            values = memory.flatten(2).transpose(1, 2) + embedding
            values = values.unflatten(0, (-1, num_frames))
            cells = cell_positions(size, self.hidden_size, content, memory.device)
            keys = values + (cells[:, None] + times[None, :, None]).to(values.dtype)
            resized = F.interpolate(mask_features, size=size, mode="bilinear", align_corners=False)
            mask = of_frames.mask(size)
            levels.append(
                Level(
                    keys=keys.flatten(1, 2),
                    values=values.flatten(1, 2),
                    mask_features=resized.unflatten(0, (-1, num_frames)).transpose(1, 2).flatten(2),
                    is_content=None if mask is None else mask.view(len(values), -1),
                )
            )
        clip_map = clip_map.unflatten(0, (-1, num_frames))
        return ImageFeatures(mask_features, tuple(levels), clip_map, content, num_frames, name_map)

    def forward(
        self, queries: Queries, features: ImageFeatures, class_embeds: Tensor | None, *, output_auxiliary: bool
    ) -> tuple[list[Prediction], Tensor]:
        """Returns the predictions (all if `output_auxiliary`, coarse first; else the last) and states (B, Q, D)."""
        flat_features = features.flat_mask_features()
        states = queries.content.to(flat_features.dtype)
        positions = queries.position.to(flat_features.dtype)
        if self.grounding is not None and queries.regions_xyxy_norm is not None:
            first_frames = features.mask_features[:: features.num_frames]
            states = states + self.grounding(first_frames, queries.regions_xyxy_norm, features.content)
        predictions = []
        for index, layer in enumerate(self.layers):
            level = features.levels[index % NUM_LEVELS]
            normed = self.norm(states)
            mask_embeds = self.mask_head(normed)
            if output_auxiliary:
                masks = self._mask_logits(mask_embeds, features, flat_features)
                predictions.append(self._describe(normed, masks, features, flat_features, class_embeds))
            is_visible = _visible_cells(mask_embeds, level)
            states = layer(states, positions, level.keys, level.values, is_visible, queries.is_isolated)
        normed = self.norm(states)
        coarse = self._mask_logits(self.mask_head(normed), features, flat_features)
        if self.refinement is None or output_auxiliary:
            predictions.append(self._describe(normed, coarse, features, flat_features, class_embeds))
        if self.refinement is not None:
            refined = self.refinement(
                coarse,
                features.mask_features,
                normed,
                queries.anchors_xy_norm,
                features.content.repeat(features.num_frames),
            )
            predictions.append(self._describe(normed, refined, features, flat_features, class_embeds))
        if self.correction is not None and queries.hints is not None:
            corrected = self._correct(predictions[-1], normed, queries.hints, features)
            # Again: the class is read where the corrected mask is.
            described = self._describe(normed, corrected.mask_logits, features, flat_features, class_embeds)
            corrected = replace(described, iou_logits=corrected.iou_logits)
            predictions = [*predictions, corrected] if output_auxiliary else [corrected]
        predictions[-1] = self._name(predictions[-1], features, class_embeds)
        return predictions, states

    def _name(self, last: Prediction, features: ImageFeatures, class_embeds: Tensor | None) -> Prediction:
        """The last prediction with the backbone's opinion, where one is asked for."""
        if self.backbone_names is None or features.name_map is None or class_embeds is None:
            return last
        inside = _without_padding(last.mask_logits.detach(), features)
        by_clip = features.name_map.unflatten(0, (-1, features.num_frames)).transpose(1, 2)
        return replace(last, backbone_class_logits=self.backbone_names(by_clip, inside, class_embeds))

    def _correct(self, last: Prediction, normed: Tensor, hints: PromptHints, features: ImageFeatures) -> Prediction:
        assert self.correction is not None
        masks, qualities = self.correction(
            last.mask_logits,
            last.iou_logits,
            features.mask_features,
            normed,
            hints,
            features.content.repeat(features.num_frames),
        )
        return Prediction(None, masks, qualities)

    def _mask_logits(self, mask_embeds: Tensor, features: ImageFeatures, flat_features: Tensor) -> Tensor:
        size = features.mask_features.shape[-2:]
        return (mask_embeds @ flat_features).unflatten(-1, (features.num_frames, *size))

    def _describe(
        self,
        normed: Tensor,
        mask_logits: Tensor,
        features: ImageFeatures,
        flat_features: Tensor,
        class_embeds: Tensor | None,
    ) -> Prediction:
        """Classes and qualities for masks."""
        classes = None
        if class_embeds is not None:
            pooled_from = _without_padding(mask_logits, features).flatten(2)
            classes = self.classifier(normed, pooled_from, flat_features, class_embeds)
        return Prediction(classes, mask_logits, self.iou_head(normed)[..., 0])


def _without_padding(mask_logits: Tensor, features: ImageFeatures) -> Tensor:
    """(B, Q, T, h, w), below 0 outside the pictures."""
    size = (mask_logits.shape[-2], mask_logits.shape[-1])
    mask = features.content.repeat(features.num_frames).mask(size)
    if mask is None:
        return mask_logits
    return mask_logits.masked_fill(~mask.view(len(mask_logits), 1, features.num_frames, *size), -1.0)


def _visible_cells(mask_embeds: Tensor, level: Level) -> Tensor:
    """(B, 1, Q, N) bool: each query attends where its mask is; where it is nowhere, it attends everywhere."""
    with torch.no_grad():
        is_visible = (mask_embeds @ level.mask_features) >= 0
        if level.is_content is not None:
            inside = level.is_content[:, None]
            is_visible = is_visible & inside
            is_visible = is_visible | (~is_visible.any(-1, keepdim=True) & inside)
        else:
            is_visible = is_visible | ~is_visible.any(-1, keepdim=True)
        return is_visible[:, None]
