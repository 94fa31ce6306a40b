"""How well each prompt's mask fits the segment it was given for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.maps import decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omg_transformers.structures import RLE, Annotation, Segments


def mask_iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None) -> float:
    """IoU of two masks of one shape outside `ignore`; 1 where both are empty."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal")
    if ignore is not None:
        prediction, truth = prediction & ~ignore, truth & ~ignore
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


class MeanPromptIoU:
    """Mean IoU over prompts. Prompt i asks for segment i of those that are no crowd and occur in the picture."""

    def __init__(self) -> None:
        self.total = 0.0
        self.good = 0
        self.count = 0

    def update(self, prediction: Segments, annotation: Annotation) -> None:
        """Count one sample; further predictions than segments are left over. Void pixels do not count."""
        truths = [segment.masks for segment in annotation.segments if any(segment.masks) and not segment.is_crowd]
        if len(prediction) < len(truths):
            raise ValueError(f"{len(prediction)} predictions for {len(truths)} segments: give one prompt per segment")
        if tuple(prediction.size) != tuple(annotation.size):
            raise ValueError(
                f"prediction has size {prediction.size}, the annotation {annotation.size}: make them equal"
            )
        shape = (annotation.num_frames, *annotation.size)
        void = _stack(annotation.void, shape)
        for index, rles in enumerate(truths):
            iou = mask_iou(prediction.mask(index).cpu().numpy(), _stack(rles, shape), void)
            self.total += iou
            self.good += iou > 0.5
            self.count += 1

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self.total += other.total
        self.good += other.good
        self.count += other.count

    def compute(self) -> dict[str, float]:
        """`iou`: mean over prompts. `recall_50`: share of prompts with an IoU above 0.5."""
        if not self.count:
            return {"iou": float("nan"), "recall_50": float("nan")}
        return {"iou": self.total / self.count, "recall_50": self.good / self.count}


def _stack(rles: tuple[RLE | None, ...], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    masks = np.zeros(shape, dtype=bool)
    for frame, rle in enumerate(rles):
        if rle is not None:
            masks[frame] = decode(rle)
    return masks
