"""Small random scenes that a head can represent exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from omg_transformers.ops.masks import encode_masks
from omg_transformers.ops.regions import random_partition
from omg_transformers.structures import Annotation, Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

# As many as the longest window of video panoptic quality.
CLIP_FRAMES = 6
# Pixels by which everything moves from frame to frame.
STEP = 2
CROWD = 2


def thing_flags(num_classes: int) -> tuple[bool, ...]:
    """Which of the classes of a scene are things: every other one."""
    return tuple(label % 2 == 0 for label in range(num_classes))


def draw_scene(
    labels: Sequence[int], *, num_classes: int, size: tuple[int, int], seed: int, is_clip: bool
) -> Annotation:
    """One region per label that tile the picture with one void region; the second is a crowd.

    is_clip: several frames, in which all move to the right and the first is out of sight in the last frame.
    """
    regions = random_partition(len(labels) + 1, size, seed=seed)
    num_frames = CLIP_FRAMES if is_clip else 1
    clips = torch.stack([regions.roll(STEP * frame, dims=-1) for frame in range(num_frames)], dim=1)
    if is_clip:
        clips[-1, -1] |= clips[0, -1]
        clips[0, -1] = False
    segments = tuple(
        Segment(label, encode_masks(masks), track_id=number, is_crowd=number == CROWD)
        for number, (label, masks) in enumerate(zip(labels, clips[:-1], strict=False), 1)
    )
    return Annotation(size, thing_flags(num_classes), segments, encode_masks(clips[-1]))
