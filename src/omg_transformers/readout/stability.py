"""How sure a mask is of its outline: what compares several answers to one prompt."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from omg_transformers.structures import MASK_STRIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.structures import QueryOutput, Segments

# Logits on both sides of the outline, as in SAM's automatic masks.
OFFSET = 1.0


def mask_stability(mask_logits: Tensor, *, offset: float = OFFSET) -> Tensor:
    """(Q, T, h, w) logits to (Q,) in [0, 1]: the IoU of the masks above `offset` and above `-offset`; empty: 0."""
    sure = (mask_logits > offset).flatten(1).sum(1)
    possible = (mask_logits > -offset).flatten(1).sum(1)
    return sure / possible.clamp(min=1)


def weigh_by_stability(results: Sequence[Segments], output: QueryOutput) -> list[Segments]:
    """The same results, their scores times the stability of their masks on the grid of mask logits.

    results: of a head whose `info["queries"]` says whose answer each segment is; others stay as they are.
    """
    weighed = []
    for index, segments in enumerate(results):
        queries = segments.info.get("queries")
        if queries is None:
            weighed.append(segments)
            continue
        size = (MASK_STRIDE * output.mask_logits.shape[-2], MASK_STRIDE * output.mask_logits.shape[-1])
        height, width = size if output.content_sizes is None else output.content_sizes[index]
        masks = output.mask_logits[index, :, :, : -(-height // MASK_STRIDE), : -(-width // MASK_STRIDE)]
        stability = mask_stability(masks[queries.to(masks.device)])
        weighed.append(replace(segments, scores=segments.scores * stability.to(segments.scores)))
    return weighed
