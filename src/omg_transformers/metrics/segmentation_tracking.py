"""Segmentation and tracking quality: are the classes right, and do tubes keep their identity?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.ratios import ratios
from omg_transformers.metrics.semantic import class_ious
from omg_transformers.metrics.video_panoptic import LabelledTubes, TubeMetric

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(slots=True)
class TubeCounts:
    """Sums over videos.

    association: (K,) over the true tubes of each thing class, each in [0, 1]. num_tubes: (K,) how many these are.
    confusion: (K, K + 1) pixels by true and predicted class, void predictions last; void truth is left out.
    """

    association: NDArray[np.float64]
    num_tubes: NDArray[np.int64]
    confusion: NDArray[np.float64]

    @classmethod
    def zeros(cls, num_classes: int) -> TubeCounts:
        """Nothing counted yet."""
        table = np.zeros((num_classes, num_classes + 1))
        return cls(np.zeros(num_classes), np.zeros(num_classes, dtype=np.int64), table)

    def add(self, other: TubeCounts) -> None:
        """Add other counts in place."""
        self.association += other.association
        self.num_tubes += other.num_tubes
        self.confusion += other.confusion


def count_tubes(
    areas: NDArray[np.float64],
    truth_classes: NDArray[np.int64],
    prediction_classes: NDArray[np.int64],
    is_thing: NDArray[np.bool_],
    is_crowd: NDArray[np.bool_],
) -> TubeCounts:
    """Count one video. areas: (G, P) pixels by true and predicted tube. *_classes: (G,) and (P,), -1 for void.

    is_thing: (K,). is_crowd: (G,), things that nobody told apart: they are no tubes, and what is predicted there does
    not make a predicted tube larger.
    """
    counts = TubeCounts.zeros(len(is_thing))
    is_valid = truth_classes >= 0
    columns = np.where(prediction_classes >= 0, prediction_classes, len(is_thing))
    np.add.at(counts.confusion, (truth_classes[is_valid][:, None], columns[None]), areas[is_valid])
    # The class -1 looks up the last entry.
    has_tubes = np.append(is_thing, False)
    is_judged = ~(is_crowd & has_tubes[truth_classes])
    areas, truth_classes = areas[is_judged], truth_classes[is_judged]
    is_tube = has_tubes[truth_classes] & (areas.sum(1) > 0)
    true_areas, labels = areas.sum(1)[is_tube], truth_classes[is_tube]
    predicted = areas[:, has_tubes[prediction_classes]]
    shared = predicted[is_tube]
    association = (shared * shared / (true_areas[:, None] + predicted.sum(0) - shared)).sum(1) / true_areas
    np.add.at(counts.association, labels, association)
    np.add.at(counts.num_tubes, labels, 1)
    return counts


class SegmentationTrackingQuality(TubeMetric):
    """STQ (Weber et al. 2021), as deeplab2 counts it: the geometric mean of association and segmentation quality.

    Tubes go through whole videos. Where void is predicted on labelled pixels, void is one more class with an IoU of 0,
    as in deeplab2: a model that leaves pixels out pays twice. Crowds are things without identity: their class counts,
    their association does not. In `update_class_maps`, true things with the instance number 0 are crowds, too.
    """

    zero_is_crowd = True

    def __init__(self, num_classes: int, is_thing: Sequence[bool] | None = None) -> None:
        super().__init__(num_classes, is_thing)
        self.counts = TubeCounts.zeros(num_classes)
        self.videos: list[dict[str, float]] = []

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self._agree(other)
        self.counts.add(other.counts)
        self.videos += other.videos

    def compute(self) -> dict[str, float]:
        """`stq`, `aq`, `sq` (mean IoU of classes) in [0, 1] over all videos; NaN before the first labelled pixel."""
        return _figures(self.counts)

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """Per class (K,): `iou`, NaN where it occurs nowhere, and `aq`, NaN where it has no true tube."""
        return {
            "iou": class_ious(self.counts.confusion),
            "aq": ratios(self.counts.association, self.counts.num_tubes),
        }

    def per_video(self) -> list[dict[str, float]]:
        """One row per video, in the order in which they were counted: `stq`, `aq`, `sq` and `frames`."""
        return [dict(video) for video in self.videos]

    def _count_video(self, tubes: LabelledTubes) -> None:
        is_thing = np.array(self._things(), dtype=bool)
        table = tubes.overlaps.total()
        counts = count_tubes(table, tubes.truth_classes, tubes.prediction_classes, is_thing, tubes.is_crowd)
        self.counts.add(counts)
        self.videos.append({**_figures(counts), "frames": tubes.overlaps.num_frames})


def _figures(counts: TubeCounts) -> dict[str, float]:
    # Without a single tube the association is 0, as in deeplab2.
    association = float(counts.association.sum()) / max(int(counts.num_tubes.sum()), 1)
    ious = class_ious(counts.confusion)
    num_classes = np.count_nonzero(~np.isnan(ious)) + int(counts.confusion[:, -1].any())
    segmentation = float(np.nansum(ious)) / num_classes if num_classes else float("nan")
    return {"stq": float(np.sqrt(association * segmentation)), "aq": association, "sq": segmentation}
