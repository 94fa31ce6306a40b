"""Mean intersection over union of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.maps import id_map_of, paint_segments, require_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segments


def count_pixels(prediction: NDArray[np.integer], truth: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Pixels by true class (rows) and predicted class (columns): (K, K + 1), the last column is "none of them".

    prediction, truth: class maps of one shape. Pixels whose truth is outside [0, K) do not count.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal")
    counts = (truth >= 0) & (truth < num_classes)
    actual, predicted = truth[counts].astype(np.int64), prediction[counts].astype(np.int64)
    predicted = np.where((predicted >= 0) & (predicted < num_classes), predicted, num_classes)
    cells = np.bincount(actual * (num_classes + 1) + predicted, minlength=num_classes * (num_classes + 1))
    return cells.reshape(num_classes, num_classes + 1)


def class_ious(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU per class (K,) from `count_pixels`; NaN for classes that occur neither in truth nor in predictions."""
    hits = np.diagonal(confusion)
    union = confusion.sum(1) + confusion[:, :-1].sum(0) - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


class MeanIoU:
    """Mean IoU over the classes that occur, and pixel accuracy. Void pixels do not count; a crowd has its class."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.confusion = np.zeros((num_classes, num_classes + 1), dtype=np.int64)

    def update(self, prediction: Segments, annotation: Annotation) -> None:
        """Count one sample. Pixels without a predicted class are misses."""
        require_classes(annotation, self.num_classes)
        ids = id_map_of(prediction, annotation)
        labels = prediction.labels.detach().cpu().numpy()
        table = np.full(max(1, int(prediction.ids.max()) + 1) if len(labels) else 1, -1, dtype=np.int64)
        table[prediction.ids.detach().cpu().numpy()] = labels
        crowds_first = sorted(annotation.segments, key=lambda segment: not segment.is_crowd)
        truth = paint_segments(((segment.category_id, segment.masks) for segment in crowds_first), ids.shape, empty=-1)
        self.confusion += count_pixels(table[ids], truth, self.num_classes)

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self.confusion += other.confusion

    def compute(self) -> dict[str, float]:
        """`miou` and `pixel_accuracy` in [0, 1]; NaN before the first labelled pixel."""
        ious = class_ious(self.confusion)
        total = int(self.confusion.sum())
        return {
            "miou": float(np.nanmean(ious)) if not np.isnan(ious).all() else float("nan"),
            "pixel_accuracy": float(np.trace(self.confusion) / total) if total else float("nan"),
        }
