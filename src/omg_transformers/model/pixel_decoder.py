"""Multi-scale deformable attention encoder with a feature pyramid (Deformable DETR; Mask2Former, sec. 3.2)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from omg_transformers.model.layers import ZeroLinear
from omg_transformers.model.positions import cell_positions

if TYPE_CHECKING:
    from omg_transformers.model.configuration import OMGSegConfig
    from omg_transformers.model.padding import Content

NUM_LEVELS = 3
# One row and column of zeros before a level; two after it, for the right corners of a place held at the border.
BORDER = 3


class ContentGroupNorm(nn.GroupNorm):
    """Group norm whose statistics come from the picture alone, never from padding."""

    def forward(self, features: Tensor, content: Content) -> Tensor:  # type: ignore[override]
        """features: (B, D, h, w)."""
        mask = content.mask((features.shape[-2], features.shape[-1]))
        if mask is None:
            return super().forward(features)
        batch, channels, height, width = features.shape
        groups = features.view(batch, self.num_groups, -1, height, width).float()
        weights = mask[:, None].float()
        count = weights.sum((2, 3, 4), keepdim=True) * groups.shape[2]
        mean = (groups * weights).sum((2, 3, 4), keepdim=True) / count
        variance = ((groups - mean).square() * weights).sum((2, 3, 4), keepdim=True) / count
        normed = ((groups - mean) * (variance + self.eps).rsqrt()).view(batch, channels, height, width)
        return (normed * self.weight[:, None, None] + self.bias[:, None, None]).to(features.dtype)


class NormedConvolution(nn.Module):
    """Convolution and group norm."""

    def __init__(self, channels: int, config: OMGSegConfig, kernel_size: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, config.hidden_size, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = ContentGroupNorm(config.group_norm_groups, config.hidden_size, eps=1e-5)

    def forward(self, features: Tensor, content: Content) -> Tensor:
        """features: (B, C, h, w) to (B, D, h, w)."""
        if self.convolution.kernel_size[0] > 1:
            features = content.zero_padding(features)
        return self.norm(self.convolution(features), content)


class SamplingOffsets(nn.Linear):
    """Where each head looks, in cells from the token: one (x, y) per level and point."""

    def __init__(self, hidden_size: int, num_heads: int, num_points: int) -> None:
        super().__init__(hidden_size, 2 * num_heads * NUM_LEVELS * num_points)
        self.num_heads, self.num_points = num_heads, num_points

    def initial_bias(self) -> Tensor:
        """Each head looks in its own direction, each point one cell further (Deformable DETR, sec. A.4)."""
        angles = torch.arange(self.num_heads, dtype=torch.float32) * (2.0 * math.pi / self.num_heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.num_points + 1, dtype=torch.float32)
        return (directions[:, None, None] * steps[:, None]).expand(-1, NUM_LEVELS, -1, -1).reshape(-1)


class DeformableAttention(nn.Module):
    """Each token reads a few places near itself in every level (Deformable DETR, eq. 3). No compiled op."""

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        self.num_heads, self.num_points = config.num_attention_heads, config.pixel_decoder_points
        samples = self.num_heads * NUM_LEVELS * self.num_points
        self.sampling_offsets = SamplingOffsets(config.hidden_size, self.num_heads, self.num_points)
        self.attention_weights = ZeroLinear(config.hidden_size, samples)
        self.value_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.output_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self, queries: Tensor, tokens: Tensor, places: Tensor, is_content: Tensor | None, sizes: list[tuple[int, int]]
    ) -> Tensor:
        """queries, tokens: (B, N, D), positions added in queries only. places: (B or 1, N, 2, 1, L * P), in cells."""
        batch, length, width = tokens.shape
        values = self.value_proj(tokens)
        if is_content is not None:
            values = values.masked_fill(~is_content[..., None], 0.0)
        values = values.view(batch, length, self.num_heads, width // self.num_heads)
        # Locations in half precision move by whole cells: everything up to the sampling stays in float32.
        with torch.autocast(tokens.device.type, enabled=False):
            queries = queries.float()
            offsets = F.linear(
                queries, _axes_apart(self.sampling_offsets.weight), _axes_apart(self.sampling_offsets.bias)
            )
            logits = F.linear(queries, self.attention_weights.weight.float(), self.attention_weights.bias.float())
            locations = places + offsets.view(batch, length, 2, self.num_heads, -1)
            logits = logits.view(batch, length, self.num_heads, -1)
            if torch.is_grad_enabled():
                sampled = _sample_for_training(values.float(), locations, logits.softmax(-1), sizes)
            else:
                sampled = _sample_for_inference(values.float(), locations, _short_softmax(logits), sizes)
        return self.output_proj(sampled.to(values.dtype))


def _axes_apart(parameter: Tensor) -> Tensor:
    """Rows x, y, x, y ... as all x, then all y: each axis lies in one piece and is computed on as a whole."""
    return parameter.float().unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1)


def _short_softmax(logits: Tensor) -> Tensor:
    """Softmax over the last axis: of a dozen entries it takes a fifth of the time of `softmax`, but more memory."""
    exponentials = (logits - logits.amax(-1, keepdim=True)).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def _sample_for_training(values: Tensor, locations: Tensor, weights: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """Weighted sums by `grid_sample`: forward plus backward it is as fast as anything in eager PyTorch.

    values: (B, N, M, d). locations: (B, N, 2, M, L * P), x and y in cells, centres at whole numbers, zeros outside.
    weights: (B, N, M, L * P). Returns (B, N, M * d).
    """
    batch, length, heads, width = values.shape
    locations, weights = locations.unflatten(-1, (NUM_LEVELS, -1)), weights.unflatten(-1, (NUM_LEVELS, -1))
    total = values.new_zeros(())
    start = 0
    for level, (height, columns) in enumerate(sizes):
        level_values = values[:, start : start + height * columns].permute(0, 2, 3, 1)
        start += height * columns
        scale = locations.new_tensor([2.0 / columns, 2.0 / height])
        grid = (locations[..., level, :].permute(0, 3, 1, 4, 2).flatten(0, 1) + 0.5) * scale - 1.0
        sampled = F.grid_sample(
            level_values.reshape(batch * heads, width, height, columns), grid, mode="bilinear", align_corners=False
        )
        level_weights = weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, length, -1)
        total = total + (sampled * level_weights).sum(-1)
    return total.view(batch, heads * width, length).transpose(1, 2)


def _sample_for_inference(values: Tensor, locations: Tensor, weights: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    """The same sums as one `embedding_bag` over 4 corners x levels x points: many times faster without gradients.

    What is outside a level is held at its border and reads zeros there, so that no corner needs a mask.
    """
    batch, length, heads, width = values.shape
    table, starts = _with_borders(values.flatten(2), sizes)
    num_points = weights.shape[-1] // len(sizes)

    def for_each_sample(per_level: list[int], dtype: torch.dtype) -> Tensor:
        numbers = torch.tensor(per_level, device=values.device, dtype=dtype).repeat_interleave(num_points)
        # In full: broadcasting along short inner axes is what elementwise operations are slow at.
        return numbers.expand(heads, -1).contiguous()

    limits = torch.stack([for_each_sample([size[axis] for size in sizes], torch.float32) for axis in (1, 0)])
    inside = torch.clamp(locations, torch.full_like(limits, -1.0), limits)
    corner = inside.floor()
    x, y = corner.unbind(2)
    row_length = for_each_sample([columns + BORDER for _, columns in sizes], torch.float32)
    cell_of_corner = torch.addcmul(x, y, row_length).to(torch.int32)

    row_length, of_level = row_length.to(torch.int32), for_each_sample(starts, torch.int32)
    steps = torch.stack([of_level, of_level + 1, of_level + row_length, of_level + row_length + 1], dim=1)
    of_head = torch.arange(heads, device=values.device, dtype=torch.int32)[:, None, None]
    of_batch = torch.arange(batch, device=values.device, dtype=torch.int32) * (table.shape[1] * heads)
    first_rows = of_batch[:, None, None, None, None] + steps * heads + of_head
    rows = torch.add(first_rows, cell_of_corner[:, :, :, None], alpha=heads)

    share_x, share_y = (inside - corner).unbind(2)
    bottom = weights * share_y
    top = weights - bottom
    bottom_right, top_right = bottom * share_x, top * share_x
    shares = torch.cat([top - top_right, top_right, bottom - bottom_right, bottom_right], dim=-1)
    bags = F.embedding_bag(
        rows.flatten(3).flatten(0, 2), table.view(-1, width), mode="sum", per_sample_weights=shares.flatten(0, 2)
    )
    return bags.view(batch, length, heads * width)


def _with_borders(values: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, list[int]]:
    """values: (B, N, D). Returns them with zeros around each level, (B, N', D), and where each level's cell 0 is."""
    padded_sizes = [(height + BORDER, columns + BORDER) for height, columns in sizes]
    lengths = [height * columns for height, columns in padded_sizes]
    table = values.new_zeros(len(values), sum(lengths), values.shape[-1])
    parts = values.split([height * columns for height, columns in sizes], dim=1)
    for level, part, size, padded in zip(table.split(lengths, dim=1), parts, sizes, padded_sizes, strict=True):
        level.unflatten(1, padded)[:, 1 : 1 + size[0], 1 : 1 + size[1]] = part.unflatten(1, size)
    starts = [sum(lengths[:level]) + columns + 1 for level, (_, columns) in enumerate(padded_sizes)]
    return table, starts


class PixelDecoderLayer(GradientCheckpointingLayer):
    """Deformable self-attention and a feed-forward net, norms after each."""

    def __init__(self, config: OMGSegConfig) -> None:
        super().__init__()
        self.attention = DeformableAttention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fc1 = nn.Linear(config.hidden_size, config.pixel_decoder_ffn_size)
        self.fc2 = nn.Linear(config.pixel_decoder_ffn_size, config.hidden_size)
        self.ffn_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(
        self, tokens: Tensor, positions: Tensor, places: Tensor, is_content: Tensor | None, sizes: list[tuple[int, int]]
    ) -> Tensor:
        """tokens, positions: (B, N, D). places: (B or 1, N, 2, 1, L * P)."""
        tokens = self.attention_norm(tokens + self.attention(tokens + positions, tokens, places, is_content, sizes))
        return self.ffn_norm(tokens + self.fc2(F.relu(self.fc1(tokens), inplace=True)))


class PixelDecoder(nn.Module):
    """Mixes the maps of stride 32, 16 and 8 and adds the one of stride 4: features that masks are read from."""

    def __init__(self, channels: tuple[int, ...], config: OMGSegConfig) -> None:
        super().__init__()
        self.hidden_size, self.num_points = config.hidden_size, config.pixel_decoder_points
        self.input_projections = nn.ModuleList(NormedConvolution(width, config) for width in reversed(channels[1:]))
        self.level_embedding = nn.Embedding(NUM_LEVELS, config.hidden_size)
        self.layers = nn.ModuleList(PixelDecoderLayer(config) for _ in range(config.pixel_decoder_layers))
        self.lateral_projection = NormedConvolution(channels[0], config, bias=False)
        self.output_convolution = NormedConvolution(config.hidden_size, config, kernel_size=3, bias=False)
        self.mask_projection = nn.Conv2d(config.hidden_size, config.hidden_size, 1)

    def forward(self, maps: list[Tensor], content: Content) -> tuple[Tensor, list[Tensor]]:
        """maps: (B, C_i, h_i, w_i), finest first.

        Returns mask features (B, D, h_0, w_0) and three memories (B, D, h, w), coarsest first.
        """
        projected = [
            projection(features, content)
            for projection, features in zip(self.input_projections, reversed(maps[1:]), strict=True)
        ]
        sizes = [(features.shape[-2], features.shape[-1]) for features in projected]
        tokens = torch.cat([features.flatten(2).transpose(1, 2) for features in projected], dim=1)
        positions = torch.cat(
            [
                cell_positions(size, self.hidden_size, content, tokens.device) + level
                for size, level in zip(sizes, self.level_embedding.weight, strict=True)
            ],
            dim=1,
        )
        places, is_content = _reference_places(sizes, self.num_points, content, tokens.device)
        for layer in self.layers:
            tokens = layer(tokens, positions, places, is_content, sizes)
        memories = [
            part.transpose(1, 2).unflatten(2, size)
            for part, size in zip(torch.split(tokens, [h * w for h, w in sizes], dim=1), sizes, strict=True)
        ]
        fine = self.lateral_projection(maps[0], content)
        fine = fine + F.interpolate(
            content.replicate_edges(memories[-1]), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        fine = F.relu(self.output_convolution(fine, content))
        return content.replicate_edges(self.mask_projection(fine)), memories


def _reference_places(
    sizes: list[tuple[int, int]], num_points: int, content: Content, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Where each token stands in every level, and which tokens see the picture, (B, N) bool or None.

    Places are (B or 1, N, 2, 1, L * P), x and y in cells with centres at whole numbers, the same for P points.
    A token at a share of its own level stands at the same share of every other; shares are of the picture.
    """
    extents = [content.extents(size, device) for size in sizes]
    shares = []
    for (height, width), extent in zip(sizes, extents, strict=True):
        y = (torch.arange(height, device=device) + 0.5) / extent[:, :1]
        x = (torch.arange(width, device=device) + 0.5) / extent[:, 1:]
        batch = len(extent)
        shares.append(
            torch.stack(
                [x[:, None, :].expand(batch, height, width), y[:, :, None].expand(batch, height, width)], dim=-1
            ).flatten(1, 2)
        )
    scale = torch.stack(extents, dim=-1).flip(1).float().repeat_interleave(num_points, dim=-1)
    places = (torch.cat(shares, dim=1)[..., None] * scale[:, None] - 0.5)[:, :, :, None]
    if content.sizes is None:
        return places, None
    masks = [content.mask(size) for size in sizes]
    return places, torch.cat([mask.flatten(1) for mask in masks if mask is not None], dim=1)
