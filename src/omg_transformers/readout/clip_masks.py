"""The masks of queries through a clip, at the size a person asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.ops.resize import MaskResizer
    from omg_transformers.structures import RLE


@dataclass(frozen=True, slots=True)
class ClipMask:
    """One query's mask in every frame (None: empty), its pixels in all frames, and the sum of their probabilities."""

    rles: tuple[RLE | None, ...]
    area: int
    prob_sum: float


def read_masks(
    masks: Tensor, queries: Sequence[int], resizer: MaskResizer, *, threshold: float = 0.0
) -> list[ClipMask]:
    """The masks of some queries where their logits exceed `threshold`. masks: (Q, T, h, w) logits."""
    frames = range(masks.shape[1])
    bounds = [resizer.bounds(masks[:, frame])[1].cpu() for frame in frames]
    clips = []
    for query in queries:
        parts = [
            resizer.threshold(masks[query, frame], bounds[frame][..., query], threshold=threshold) for frame in frames
        ]
        clips.append(
            ClipMask(
                tuple(part.rle for part in parts),
                sum(part.area for part in parts),
                sum(part.prob_sum for part in parts),
            )
        )
    return clips
