"""What inference gives back."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.ops.votes import TrackVotes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np

    from omg_transformers.structures import RLE, Segments


@dataclasses.dataclass(frozen=True, slots=True)
class FrameResult:
    """The answer for one frame of a video.

    index: of the frame, from 0. segments: T = 1; one id is one object through the whole video. frame: the pixels it
    is about, (H, W, 3) uint8.
    """

    index: int
    segments: Segments
    frame: np.ndarray[Any, Any]


def join_frames(results: Iterable[FrameResult]) -> Segments:
    """One result for a whole video, with label and score by TrackVotes. ValueError without a frame."""
    frames = [on_cpu(result.segments) for result in results]
    if not frames:
        raise ValueError("the video has no frame: give at least one")
    votes: dict[int, TrackVotes] = {}
    for segments in frames:
        told = zip(segments.ids.tolist(), segments.labels.tolist(), segments.scores.tolist(), strict=True)
        for identity, label, score in told:
            votes.setdefault(identity, TrackVotes()).add(label, score)
    id_maps = [segments.id_map for segments in frames if segments.id_map is not None]
    rles: tuple[tuple[RLE | None, ...], ...] | None = None
    if not id_maps:
        masks = [dict(zip(each.ids.tolist(), each.rles or (), strict=True)) for each in frames]
        rles = tuple(tuple(frame.get(identity, (None,))[0] for frame in masks) for identity in votes)
    return dataclasses.replace(
        frames[0],
        ids=torch.tensor(list(votes), dtype=torch.int64),
        labels=torch.tensor([track.label for track in votes.values()], dtype=torch.int64),
        scores=torch.tensor([track.score for track in votes.values()], dtype=torch.float32),
        id_map=torch.cat(id_maps) if id_maps else None,
        rles=rles,
        info={},
    )


def on_cpu(segments: Segments) -> Segments:
    """The same segments with their tensors on the CPU."""
    return dataclasses.replace(
        segments,
        ids=segments.ids.cpu(),
        labels=segments.labels.cpu(),
        scores=segments.scores.cpu(),
        id_map=None if segments.id_map is None else segments.id_map.cpu(),
    )


def above_thresholds(segments: Segments, thresholds: Sequence[float]) -> Segments:
    """The segments whose score is above the threshold of their label; those without a label stay."""
    device = segments.labels.device
    least = torch.tensor([*thresholds, -1.0], device=device)[segments.labels.clamp(min=-1)]
    is_kept = segments.scores > least
    kept = is_kept.nonzero()[:, 0]
    id_map = segments.id_map
    if id_map is not None:
        gone = segments.ids[~is_kept].to(id_map)
        id_map = id_map.masked_fill(torch.isin(id_map, gone), 0)
    return dataclasses.replace(
        segments,
        ids=segments.ids[kept],
        labels=segments.labels[kept],
        scores=segments.scores[kept],
        id_map=id_map,
        rles=None if segments.rles is None else tuple(segments.rles[row] for row in kept.tolist()),
        info={
            name: value[kept] if isinstance(value, torch.Tensor) and len(value) == len(is_kept) else value
            for name, value in segments.info.items()
        },
    )


def check_frame_size(size: tuple[int, int], expected: tuple[int, int] | None, index: int) -> None:
    """Refuse a frame whose (height, width) is not that of the frames before it."""
    if expected is not None and size != expected:
        raise ValueError(
            f"frame {index} is {size[1]} x {size[0]} but the video is {expected[1]} x {expected[0]}: "
            "resize its frames to one size, or start a new session where it changes"
        )
