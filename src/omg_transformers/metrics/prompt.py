"""How well each prompt's mask fits the segment it was given for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omg_transformers.metrics.maps import decode

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import RLE, Annotation, Segments


def mask_iou(prediction: NDArray[np.bool_], truth: NDArray[np.bool_], ignore: NDArray[np.bool_] | None = None) -> float:
    """IoU of two masks of one shape outside `ignore`; 1 where both are empty."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal")
    if ignore is not None:
        if ignore.shape != truth.shape:
            raise ValueError(f"ignore has shape {ignore.shape}, truth {truth.shape}: they must be equal")
        prediction, truth = prediction & ~ignore, truth & ~ignore
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


class MeanPromptIoU:
    """Mean IoU over prompts. Prompt i asks for segment i of those that are no crowd and occur in the picture.

    Give each kind of prompt (one click, one box) a metric of its own. Keeps three numbers per class.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.good = 0
        self.count = 0
        # Per class (-1: none) its prompts, and their IoUs and good ones summed.
        self.classes: dict[int, list[float]] = {}

    def update(
        self,
        prediction: Segments,
        annotation: Annotation,
        *,
        key: Hashable = None,  # noqa: ARG002 - part of the contract
    ) -> None:
        """Count one sample; further predictions than segments are left over. Void pixels do not count."""
        segments = [segment for segment in annotation.segments if any(segment.masks) and not segment.is_crowd]
        if len(prediction) < len(segments):
            raise ValueError(f"{len(prediction)} predictions for {len(segments)} segments: give one prompt per segment")
        if tuple(prediction.size) != tuple(annotation.size):
            raise ValueError(
                f"prediction has size {prediction.size}, the annotation {annotation.size}: make them equal"
            )
        shape = (annotation.num_frames, *annotation.size)
        void = _stack(annotation.void, shape)
        for index, segment in enumerate(segments):
            mask = prediction.mask(index).cpu().numpy()
            self._add(mask_iou(mask, _stack(segment.masks, shape), void), segment.category_id)

    def update_masks(
        self,
        predictions: Sequence[NDArray[np.bool_]],
        truths: Sequence[NDArray[np.bool_]],
        ignore: NDArray[np.bool_] | None = None,
        *,
        labels: Sequence[int] | None = None,
        name: str = "",
    ) -> None:
        """Count one sample given as bool masks of one shape: mask i of `predictions` answers mask i of `truths`.

        labels: the class of each, for the table. name: of the sample, for errors.
        """
        if len(predictions) != len(truths) or (labels is not None and len(labels) != len(truths)):
            counts = f"{len(predictions)} predictions for {len(truths)} masks"
            counts += "" if labels is None else f" with {len(labels)} labels"
            raise ValueError(f"{name or 'predictions'}: {counts}, expected one of each per prompt")
        ious = []
        for index, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
            try:
                ious.append(mask_iou(np.asarray(prediction, bool), np.asarray(truth, bool), ignore))
            except ValueError as error:
                raise ValueError(f"{name or 'predictions'}, mask {index}: {error}") from error
        for index, iou in enumerate(ious):
            self._add(iou, -1 if labels is None else labels[index])

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self.total += other.total
        self.good += other.good
        self.count += other.count
        for label, sums in other.classes.items():
            own = self.classes.setdefault(label, [0, 0.0, 0])
            own[:] = [mine + theirs for mine, theirs in zip(own, sums, strict=True)]

    def compute(self) -> dict[str, float]:
        """`iou`: mean over prompts. `recall_50`: share of prompts with an IoU above 0.5."""
        if not self.count:
            return {"iou": float("nan"), "recall_50": float("nan")}
        return {"iou": self.total / self.count, "recall_50": self.good / self.count}

    def table(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """One row per class that occurs: `name` ("" without class), `prompts`, `iou`, `recall_50`."""
        return [
            {
                "name": "" if label < 0 else names[label] if names is not None else str(label),
                "prompts": int(count),
                "iou": total / count,
                "recall_50": good / count,
            }
            for label, (count, total, good) in sorted(self.classes.items())
        ]

    def _add(self, iou: float, label: int) -> None:
        self.total += iou
        self.good += iou > 0.5
        self.count += 1
        sums = self.classes.setdefault(label, [0, 0.0, 0])
        sums[:] = [sums[0] + 1, sums[1] + iou, sums[2] + (iou > 0.5)]


def _stack(rles: tuple[RLE | None, ...], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    masks = np.zeros(shape, dtype=bool)
    for frame, rle in enumerate(rles):
        if rle is not None:
            masks[frame] = decode(rle)
    return masks
