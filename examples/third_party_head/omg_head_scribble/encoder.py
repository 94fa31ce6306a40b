"""The query type "scribble": what the decoder is asked by a line drawn over an object."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omg_transformers.structures import Queries

if TYPE_CHECKING:
    from collections.abc import Mapping


class ScribbleEncoder(nn.Module):
    """One query per scribble, a polyline of K points; K may differ from call to call."""

    def __init__(self, hidden_size: int, num_frequencies: int = 6) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.point_layers = nn.Sequential(
            nn.Linear(4 * num_frequencies, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
        )
        self.content_projection = nn.Linear(2 * hidden_size, hidden_size)
        self.position_projection = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, *, batch_size: int, content_sizes: Tensor, inputs: Mapping[str, Any]) -> Queries:
        """inputs: `scribble_points` (B, N, K, 2), (x, y) in pixels of the padded input."""
        points = inputs.get("scribble_points")
        if not isinstance(points, Tensor) or points.dim() != 4 or len(points) != batch_size or points.shape[-1] != 2:
            shape = tuple(points.shape) if isinstance(points, Tensor) else type(points).__name__
            raise ValueError(
                f"scribble_points is {shape}: expected a tensor ({batch_size}, N, K, 2), "
                "one line of K points (x, y) per object, in pixels of the padded input"
            )
        xy_norm = points.float() / content_sizes.flip(-1)[:, None, None]
        features = self.point_layers(self._waves(xy_norm).to(self.content_projection.weight.dtype))
        # Mean and maximum: where the line lies, and how far it reaches, in whatever direction it was drawn.
        line = torch.cat([features.mean(2), features.amax(2)], dim=-1)
        return Queries(
            content=self.content_projection(line),
            position=self.position_projection(line),
            is_isolated=True,
            # A point of the line: the mean of a bent one may lie outside the object.
            anchors_xy_norm=xy_norm[:, :, xy_norm.shape[2] // 2].clamp(0, 1),
        )

    def _waves(self, xy_norm: Tensor) -> Tensor:
        # Made anew each time: a buffer that no checkpoint holds would be garbage after from_pretrained.
        frequencies = math.pi * 2.0 ** torch.arange(self.num_frequencies, device=xy_norm.device)
        angles = (xy_norm[..., None] * frequencies).flatten(-2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
