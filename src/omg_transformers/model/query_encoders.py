"""What the decoder is asked: learned queries, points and boxes, or a plug-in's own query type."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from omg_transformers.model.positions import box_positions
from omg_transformers.model.prompt_inputs import other_extents, read_prompts
from omg_transformers.plugins import HeadLoadError, load_query_encoder
from omg_transformers.structures import Queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omg_transformers.model.configuration import OMGSegConfig


class LearnedQueries(nn.Module):
    """A fixed set of trained queries: everything in the picture."""

    def __init__(self, num_queries: int, hidden_size: int) -> None:
        super().__init__()
        self.content = nn.Embedding(num_queries, hidden_size)
        self.position = nn.Embedding(num_queries, hidden_size)

    def forward(self, *, batch_size: int, content_sizes: Tensor, inputs: Mapping[str, Any]) -> Queries:  # noqa: ARG002
        """The same queries for every sample; takes no inputs."""
        if inputs:
            raise ValueError(
                f"query_inputs holds {sorted(inputs)}: learned queries take none, choose another query_type"
            )
        return Queries(
            content=self.content.weight.expand(batch_size, -1, -1),
            position=self.position.weight.expand(batch_size, -1, -1),
        )


class PromptQueries(nn.Module):
    """One query per object, holding a box or a point. A point is a small box around it, as in the original.

    What is said beyond that (more points, points outside, a mask) comes along as hints; with `hints_always` so does
    a prompt that is alone.
    """

    def __init__(self, hidden_size: int, point_row: int, point_radius: float, *, hints_always: bool = False) -> None:
        super().__init__()
        self.point_row, self.point_radius, self.hints_always = point_row, point_radius, hints_always
        self.mask_token = nn.Embedding(1, hidden_size)
        self.type_embedding = nn.Embedding(2, hidden_size)
        self.position_projection = nn.Linear(2 * hidden_size, hidden_size)

    def forward(self, *, batch_size: int, content_sizes: Tensor, inputs: Mapping[str, Any]) -> Queries:
        """inputs, each about N objects: `input_boxes` (B, N, 4) xyxy, -10 everywhere: no box; `input_points`
        (B, N, P, 2) with `input_labels` (B, N, P), 1 inside (also without labels), 0 outside, -10 no point; both in
        pixels of the padded input; `input_masks` (B, N, H / 4, W / 4) in [0, 1], zeros: no mask.

        `box_types` (B, N) int64 may tell which boxes stand for boxes (0) and which for points (1).
        With `multimask_output` every object has NUM_CANDIDATES queries in a row: as asked, then of other extents.
        """
        asked = read_prompts(
            inputs, batch_size, content_sizes, self.point_row, self.point_radius, hints_always=self.hints_always
        )
        if inputs.get("multimask_output"):
            asked = other_extents(asked, content_sizes)
        corners = asked.boxes.float().unflatten(-1, (2, 2)) / content_sizes.flip(-1)[:, None, None]
        centre, extent = corners.mean(2), corners[:, :, 1] - corners[:, :, 0]
        box = _squash(torch.cat([centre, extent], dim=-1))
        content = self.type_embedding(asked.types) + self.mask_token.weight[0]
        encoding = box_positions(box, content.shape[-1] // 2)
        return Queries(
            content=content,
            position=self.position_projection(encoding.to(content.dtype)),
            is_isolated=True,
            anchors_xy_norm=centre.clamp(0, 1),
            regions_xyxy_norm=corners.flatten(2).clamp(0, 1),
            hints=asked.hints,
        )


def _squash(shares: Tensor, epsilon: float = 1e-5) -> Tensor:
    """sigmoid(inverse_sigmoid(x)) as the original takes it: x inside (epsilon, 1 - epsilon), bounded outside."""
    shares = shares.clamp(0, 1)
    return shares.clamp(min=epsilon) / (shares.clamp(min=epsilon) + (1 - shares).clamp(min=epsilon))


def build_query_encoders(config: OMGSegConfig) -> tuple[nn.ModuleDict, dict[str, str]]:
    """All query encoders that can be built, and the reason for each that cannot (its plug-in is not installed)."""
    encoders = nn.ModuleDict(
        {
            "learned": LearnedQueries(config.num_queries, config.hidden_size),
            "prompt": PromptQueries(
                config.hidden_size,
                config.point_prompt_row,
                config.point_prompt_radius,
                hints_always=config.single_prompt_correction,
            ),
        }
    )
    missing = {}
    for name, entry in (config.query_encoders or {}).items():
        try:
            encoder_class = load_query_encoder(name)
        except LookupError:
            distribution = entry.get("distribution", "an unknown distribution")
            missing[name] = (
                f"query type {name!r} needs {distribution}, which is not installed: pip install {distribution}"
            )
        except HeadLoadError as error:
            missing[name] = f"query type {name!r} is installed but cannot be used: {error}"
        if name in missing:
            warnings.warn(f"{missing[name]}. Its weights are left out, all else is loaded.", stacklevel=4)
            continue
        encoders[name] = encoder_class(hidden_size=config.hidden_size, **entry.get("options", {}))
    return encoders, missing
