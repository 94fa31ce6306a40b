"""Semantic segmentation of videos: VSPW's mean IoU and video consistency (mVC)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omg_transformers.metrics.semantic import MeanIoU, class_maps, require_maps

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segments

CLIP_LENGTHS = (8, 16)


def clip_consistencies(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    clip_lengths: Sequence[int] = CLIP_LENGTHS,
    *,
    name: str = "",
) -> dict[int, NDArray[np.float64]]:
    """Of the pixels whose truth stays the same through a clip, the share whose prediction does too: C -> (T - C,).

    prediction, truth: class maps (T, H, W). Clips start at frames 0 to T - C - 1 and videos of T <= C frames have
    none: that is how VSPW's own program counts, which never uses the last clip. The prediction is compared with
    itself only, and void is a label like others. NaN where no pixel's truth stays.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    require_maps(prediction, truth, name)
    if truth.ndim != 3:
        raise ValueError(f"{name or 'truth'} has shape {truth.shape}: expected class maps (T, H, W)")
    shares: dict[int, list[float]] = {length: [] for length in clip_lengths}
    num_frames = len(truth)
    # For how many frames each pixel has kept its label: one pass serves the clips of every length.
    kept_truth = np.zeros(truth.shape[1:], dtype=np.int32)
    kept_prediction = kept_truth.copy()
    for last in range(num_frames - 1):
        if last:
            kept_truth = (kept_truth + 1) * (truth[last] == truth[last - 1])
            kept_prediction = (kept_prediction + 1) * (prediction[last] == prediction[last - 1])
        for length in clip_lengths:
            if last >= length - 1:
                stays = kept_truth >= length - 1
                total = int(np.count_nonzero(stays))
                both = int(np.count_nonzero(stays & (kept_prediction >= length - 1)))
                shares[length].append(both / total if total else float("nan"))
    return {length: np.array(values, dtype=np.float64) for length, values in shares.items()}


@dataclass(slots=True)
class Consistency:
    """One video: number of frames, and per clip length the summed shares, clips with a share, clips without."""

    name: str
    num_frames: int
    sums: dict[int, float] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    undefined: dict[int, int] = field(default_factory=dict)


class VideoSemanticQuality:
    """Mean IoU over all frames as VSPW's evaluation (classes absent from the truth left out) and mVC over clips.

    Keeps a confusion matrix and, per video, one sum and two counts for each clip length. `skipped` names what has no
    clip to judge. pixels: the `MeanIoU` of all frames, with further figures.
    """

    def __init__(
        self, num_classes: int, *, clip_lengths: Sequence[int] = CLIP_LENGTHS, ignore_index: int | None = None
    ) -> None:
        if not clip_lengths or min(clip_lengths) < 2:
            raise ValueError(f"clip_lengths is {tuple(clip_lengths)}: expected numbers of frames, each at least 2")
        self.clip_lengths = tuple(clip_lengths)
        self.pixels = MeanIoU(num_classes, ignore_index=ignore_index, with_false_classes=False)
        self.videos: list[Consistency] = []

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one video. Pixels without a predicted class are misses. key: its name, for `per_video`."""
        self.pixels.update(prediction, annotation)
        self._add(*class_maps(prediction, annotation), "" if key is None else str(key))

    def update_maps(self, prediction: NDArray[np.integer], truth: NDArray[np.integer], *, name: str = "") -> None:
        """Count one video: class maps (T, H, W), all its frames in order.

        name: of the video, for errors and `per_video`.
        """
        if np.ndim(truth) != 3:
            raise ValueError(f"{name or 'truth'} has shape {np.shape(truth)}: expected class maps (T, H, W)")
        self.pixels.update_maps(prediction, truth, name=name)
        self._add(prediction, truth, name)

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if other.clip_lengths != self.clip_lengths:
            raise ValueError(f"other has clip_lengths {other.clip_lengths}, this metric {self.clip_lengths}")
        self.pixels.merge(other.pixels)
        self.videos += other.videos

    def compute(self) -> dict[str, float]:
        """`miou`, then `mvc<C>` per clip length, pooled over the clips of all videos; NaN where there is no clip."""
        figures = {"miou": self.pixels.compute()["miou"]}
        for length in self.clip_lengths:
            count = sum(video.counts[length] for video in self.videos)
            total = sum(video.sums[length] for video in self.videos)
            figures[f"mvc{length}"] = total / count if count else float("nan")
        return figures

    def per_class(self) -> dict[str, NDArray[Any]]:
        """As `MeanIoU.per_class`, over the frames of all videos."""
        return self.pixels.per_class()

    def per_video(self) -> list[dict[str, Any]]:
        """One row per video: `name`, `frames`, and per clip length `vc<C>` (NaN without clips) and `clips<C>`."""
        return [
            {
                "name": video.name or str(number),
                "frames": video.num_frames,
                **{f"vc{length}": _share(video, length) for length in self.clip_lengths},
                **{f"clips{length}": video.counts[length] for length in self.clip_lengths},
            }
            for number, video in enumerate(self.videos)
        ]

    @property
    def skipped(self) -> list[str]:
        """What mVC leaves out, with the reason: videos not longer than a clip, clips in which no true label stays."""
        lines = []
        for number, video in enumerate(self.videos):
            title = video.name or f"video {number}"
            for length in self.clip_lengths:
                if video.num_frames <= length:
                    lines.append(f"{title}: {video.num_frames} frames, mvc{length} needs more than {length}")
                elif video.undefined[length]:
                    lines.append(f"{title}: {video.undefined[length]} clips of {length} frames keep no true label")
        return lines

    def _add(self, prediction: NDArray[np.integer], truth: NDArray[np.integer], name: str) -> None:
        video = Consistency(name, len(truth))
        for length, shares in clip_consistencies(prediction, truth, self.clip_lengths, name=name).items():
            video.sums[length] = float(np.nansum(shares))
            video.counts[length] = int(np.count_nonzero(~np.isnan(shares)))
            video.undefined[length] = len(shares) - video.counts[length]
        self.videos.append(video)


def _share(video: Consistency, length: int) -> float:
    return video.sums[length] / video.counts[length] if video.counts[length] else float("nan")
