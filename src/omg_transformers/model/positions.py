"""Sine position embeddings of cells, frames and boxes (DETR, sec. A.4; Conditional DETR for boxes)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from omg_transformers.model.padding import Content

TEMPERATURE = 10_000.0
# The original divides by (count + 1e-6); kept, since it shifts every position by a float32 rounding.
EPSILON = 1e-6


def sine_embedding(angles: Tensor, num_channels: int) -> Tensor:
    """angles: (...,) in radians. Returns (..., num_channels): sines and cosines of falling frequency, interleaved."""
    exponents = torch.arange(num_channels, device=angles.device, dtype=torch.float32).div(2, rounding_mode="floor")
    phases = angles[..., None] / TEMPERATURE ** (2 * exponents / num_channels)
    return torch.stack([phases[..., 0::2].sin(), phases[..., 1::2].cos()], dim=-1).flatten(-2)


def cell_positions(size: tuple[int, int], num_channels: int, content: Content, device: torch.device) -> Tensor:
    """(B or 1, h * w, num_channels): y in the first half of the channels, x in the second.

    Cells are counted from 1 and divided by the number of cells that see the picture, so padding changes nothing.
    """
    totals = content.extents(size, device)
    half = num_channels // 2
    y, x = (
        sine_embedding(
            torch.arange(1, count + 1, device=device) / (totals[:, axis : axis + 1] + EPSILON) * 2 * math.pi, half
        )
        for axis, count in enumerate(size)
    )
    batch = len(totals)
    return torch.cat(
        [y[:, :, None].expand(batch, *size, half), x[:, None, :].expand(batch, *size, half)], dim=-1
    ).flatten(1, 2)


def frame_positions(num_frames: int, num_channels: int, device: torch.device) -> Tensor:
    """(T, num_channels): added to every cell of frame t. A single picture gets one too, as in the original."""
    frames = torch.arange(1, num_frames + 1, device=device)
    return sine_embedding(frames / (num_frames + EPSILON) * 2 * math.pi, num_channels)


def box_positions(boxes_cxcywh_norm: Tensor, num_channels: int) -> Tensor:
    """boxes: (..., 4) centre, width and height in [0, 1]. Returns (..., 4 * num_channels): y, x, width, height."""
    x, y, width, height = boxes_cxcywh_norm.unbind(-1)
    return torch.cat([sine_embedding(part * 2 * math.pi, num_channels) for part in (y, x, width, height)], dim=-1)
