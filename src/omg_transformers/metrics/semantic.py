"""Mean intersection over union of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omg_transformers.metrics.maps import id_map_of, labels_by_id, paint_segments, require_classes
from omg_transformers.metrics.ratios import mean_of_known, ratios

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segments

# ADE20K stores "other" as 0 and its classes from 1 on; 255 stays void (mmseg's `reduce_zero_label`).
ADE_OTHER, ADE_VOID = 0, 255


def count_pixels(
    prediction: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int, *, name: str = ""
) -> NDArray[np.int64]:
    """Pixels by true class (rows) and predicted class (columns): (K, K + 1), the last column is "none of them".

    prediction, truth: class maps of one shape. Pixels whose truth is outside [0, K) do not count.
    name: of the sample, for errors.
    """
    return count_all_pixels(prediction, truth, num_classes, name=name)[:-1]


def count_all_pixels(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    num_classes: int,
    *,
    ignore_index: int | None = None,
    name: str = "",
) -> NDArray[np.int64]:
    """As `count_pixels`, with a last row for pixels whose truth is none of the classes: (K + 1, K + 1).

    ignore_index: pixels with this truth are in no cell at all.
    """
    prediction, truth = np.asarray(prediction), np.asarray(truth)
    require_maps(prediction, truth, name)
    side = num_classes + 1
    rows = _numbered(truth, num_classes, step=side, ignore_index=ignore_index)
    rows += _numbered(prediction, num_classes, step=1, ignore_index=None)
    counts = np.bincount(rows.ravel(), minlength=(side + 1) * side)
    return counts.astype(np.int64, copy=False).reshape(side + 1, side)[:-1]


def class_ious(confusion: NDArray[np.number]) -> NDArray[np.float64]:
    """IoU per class (K,), NaN for classes that occur nowhere.

    confusion: pixels by true and predicted class as of `count_pixels`, (K, K + 1), or `count_all_pixels`.
    """
    num_classes = confusion.shape[1] - 1
    hits = np.diagonal(confusion)[:num_classes]
    union = confusion[:num_classes].sum(1) + confusion[:, :num_classes].sum(0) - hits
    return ratios(hits, union)


def reduce_labels(truth: NDArray[np.integer]) -> NDArray[np.int64]:
    """A class map as ADE20K stores it (0 = other, 1 to K the classes, 255 void), with classes from 0 and void -1."""
    classes = np.asarray(truth).astype(np.int64)
    return np.where((classes == ADE_OTHER) | (classes == ADE_VOID), -1, classes - 1)


class MeanIoU:
    """Mean IoU over the classes that occur, pixel accuracy and mean accuracy of classes.

    A predicted class that is none of the K is a miss of the true class and nothing else (mmseg, Hugging Face).
    ignore_index: the one true value that does not count; other values outside [0, K) then count against the class
    that is predicted there, as in Hugging Face's metric. None: all values outside [0, K) are void.
    is_ade_numbered: truth maps hold 0 = other, 1 to K the classes (see `reduce_labels`).
    with_false_classes: a class that occurs in predictions only has IoU 0 (mmseg, Hugging Face); else it is left out
    of the mean, as in VSPW's evaluation.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_index: int | None = None,
        is_ade_numbered: bool = False,
        with_false_classes: bool = True,
    ) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: give the number of classes, at least 1")
        if is_ade_numbered and ignore_index not in (None, ADE_VOID):
            raise ValueError(f"ignore_index is {ignore_index}: maps numbered as ADE20K's have void {ADE_VOID}")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.is_ade_numbered = is_ade_numbered
        self.with_false_classes = with_false_classes
        self.confusion = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
        # Predicted pixels per class whose truth is neither a class nor `ignore_index`.
        self.strays = np.zeros(num_classes, dtype=np.int64)

    def update(
        self,
        prediction: Segments,
        annotation: Annotation,
        *,
        key: Hashable = None,  # noqa: ARG002 - part of the contract
    ) -> None:
        """Count one sample. Pixels without a predicted class are misses; void does not count; a crowd has its class."""
        require_classes(annotation, self.num_classes)
        self.confusion += count_pixels(*class_maps(prediction, annotation), self.num_classes)

    def update_maps(self, prediction: NDArray[np.integer], truth: NDArray[np.integer], *, name: str = "") -> None:
        """Count one pair of class maps of one shape, (H, W) or (T, H, W). name: of the sample, for errors."""
        require_maps(np.asarray(prediction), np.asarray(truth), name)
        if self.is_ade_numbered:
            counts = count_all_pixels(prediction, reduce_labels(truth), self.num_classes, ignore_index=-1)
        else:
            counts = count_all_pixels(prediction, truth, self.num_classes, ignore_index=self.ignore_index)
        self.confusion += counts[:-1]
        if self.is_ade_numbered or self.ignore_index is not None:
            self.strays += counts[-1, :-1]

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"other counts {other.num_classes} classes, this metric {self.num_classes}")
        own, theirs = ((metric.ignore_index, metric.is_ade_numbered) for metric in (self, other))
        if own != theirs:
            raise ValueError(
                f"(ignore_index, is_ade_numbered) of other are {theirs}, of this metric {own}: use one rule"
            )
        self.confusion += other.confusion
        self.strays += other.strays

    def ious(self) -> NDArray[np.float64]:
        """IoU per class (K,), NaN for the classes that the mean leaves out."""
        ious = class_ious(np.vstack([self.confusion, [*self.strays, 0]]))
        return ious if self.with_false_classes else np.where(self.confusion.sum(1) > 0, ious, np.nan)

    def compute(self) -> dict[str, float]:
        """`miou`, `pixel_accuracy`, `mean_accuracy`, `frequency_weighted_iou` in [0, 1]; NaN before labelled pixels."""
        ious, labelled = self.ious(), self.confusion.sum(1)
        hits, total = np.diagonal(self.confusion), int(labelled.sum())
        weighted = float(np.nansum(labelled * ious) / total) if total else float("nan")
        return {
            "miou": mean_of_known(ious),
            "pixel_accuracy": float(hits.sum() / total) if total else float("nan"),
            "mean_accuracy": mean_of_known(ratios(hits, labelled)),
            "frequency_weighted_iou": weighted,
        }

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Per class (K,): `iou` and `accuracy`, NaN where undefined, and pixels `hit`, `true` and `predicted`."""
        hits, labelled = np.diagonal(self.confusion), self.confusion.sum(1)
        return {
            "iou": self.ious(),
            "accuracy": ratios(hits, labelled),
            "hit": hits.copy(),
            "true": labelled,
            "predicted": self.confusion[:, :-1].sum(0) + self.strays,
        }


def class_maps(prediction: Segments, annotation: Annotation) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The predicted and the true class (T, H, W) at each pixel, -1 = none. Single objects cover crowds."""
    ids = id_map_of(prediction, annotation)
    crowds_first = sorted(annotation.segments, key=lambda segment: not segment.is_crowd)
    truth = paint_segments(((segment.category_id, segment.masks) for segment in crowds_first), ids.shape, empty=-1)
    return labels_by_id(prediction)[ids], truth


def require_maps(prediction: NDArray[Any], truth: NDArray[Any], name: str = "") -> None:
    """Refuse maps that are not whole numbers of one shape; the error names the sample."""
    sample = f"{name}: " if name else ""
    for argument, values in (("prediction", prediction), ("truth", truth)):
        if values.dtype.kind not in "iub":
            raise TypeError(f"{sample}{argument} has dtype {values.dtype}: expected one whole number per pixel")
    if prediction.shape != truth.shape:
        raise ValueError(
            f"{sample}prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal; "
            "resize the prediction to the truth without interpolation"
        )


def _numbered(
    classes: NDArray[np.integer], num_classes: int, *, step: int, ignore_index: int | None
) -> NDArray[np.int64]:
    """`step` times: the class, K for none of them, K + 1 for `ignore_index`."""
    if classes.dtype.kind == "u" and classes.dtype.itemsize <= 2:
        # Small maps go through a table: twice as fast as comparing.
        table = _renumber(np.arange(int(classes.max(initial=0)) + 1), num_classes, step, ignore_index)
        return table[classes]
    return _renumber(classes.astype(np.int64), num_classes, step, ignore_index)


def _renumber(values: NDArray[np.int64], num_classes: int, step: int, ignore_index: int | None) -> NDArray[np.int64]:
    numbered = np.where((values >= 0) & (values < num_classes), values, num_classes)
    if ignore_index is not None:
        numbered[values == ignore_index] = num_classes + 1
    return numbered * step
