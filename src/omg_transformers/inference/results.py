"""What inference gives back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from omg_transformers.structures import Segments


@dataclasses.dataclass(frozen=True, slots=True)
class FrameResult:
    """The answer for one frame of a video.

    index: of the frame, from 0. segments: T = 1; one id is one object through the whole video. frame: the pixels it
    is about, (H, W, 3) uint8.
    """

    index: int
    segments: Segments
    frame: np.ndarray[Any, Any]


def on_cpu(segments: Segments) -> Segments:
    """The same segments with their tensors on the CPU."""
    return dataclasses.replace(
        segments,
        ids=segments.ids.cpu(),
        labels=segments.labels.cpu(),
        scores=segments.scores.cpu(),
        id_map=None if segments.id_map is None else segments.id_map.cpu(),
    )
