"""How well each prompt's mask fits the segment it was given for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omg_transformers.metrics.maps import decode
from omg_transformers.metrics.ratios import ratios

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

    Give each kind of prompt (one click, one box) a metric of its own. num_classes: larger labels are an error; None:
    there are as many classes as the largest label says. Keeps three numbers per class.
    """

    def __init__(self, num_classes: int | None = None) -> None:
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: expected at least 1, or None")
        self.num_classes = num_classes
        # Per class (row 0: none) the number of prompts, and their IoUs and good ones summed.
        self.sums = np.zeros((1 + (num_classes or 0), 3))

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

        labels: the class of each, -1 for none. name: of the sample, for errors.
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
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge a metric of {other.num_classes} classes into one of {self.num_classes}")
        self._make_room(len(other.sums))
        self.sums[: len(other.sums)] += other.sums

    @property
    def count(self) -> int:
        """Number of prompts."""
        return int(self.sums[:, 0].sum())

    def compute(self) -> dict[str, float]:
        """`iou`: mean over prompts. `recall_50`: share of prompts with an IoU above 0.5."""
        return {name: float(column[0]) for name, column in _columns(self.sums.sum(0, keepdims=True)).items()}

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Per class (K,): `iou` and `recall_50`, NaN for classes without a prompt, and the number of `prompts`."""
        return {**_columns(self.sums[1:]), "prompts": self.sums[1:, 0].astype(np.int64)}

    def _add(self, iou: float, label: int) -> None:
        self._make_room(label + 2)
        self.sums[max(label, -1) + 1] += 1, iou, iou > 0.5

    def _make_room(self, num_rows: int) -> None:
        missing = num_rows - len(self.sums)
        if missing > 0 and self.num_classes is not None:
            raise ValueError(f"a prompt has class {num_rows - 2}, the metric counts {self.num_classes} classes")
        self.sums = np.pad(self.sums, ((0, max(0, missing)), (0, 0)))


def _columns(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    count, iou, good = sums.T
    return {"iou": ratios(iou, count), "recall_50": ratios(good, count)}


def _stack(rles: tuple[RLE | None, ...], shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    masks = np.zeros(shape, dtype=bool)
    for frame, rle in enumerate(rles):
        if rle is not None:
            masks[frame] = decode(rle)
    return masks
