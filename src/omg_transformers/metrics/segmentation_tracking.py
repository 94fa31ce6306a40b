"""Segmentation and tracking quality: are the classes right, and do tubes keep their identity?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.panoptic import classes_of
from omg_transformers.metrics.video_panoptic import TubeMetric, TubeOverlaps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SequenceCounts:
    """One video. association: summed over its true thing tubes, each in [0, 1]; confusion: see `count_video`."""

    name: str
    num_frames: int
    association: float
    num_tubes: int
    confusion: NDArray[np.float64]


def count_video(
    areas: NDArray[np.float64],
    truth_classes: NDArray[np.int64],
    prediction_classes: NDArray[np.int64],
    is_thing: NDArray[np.bool_],
    is_crowd: NDArray[np.bool_],
) -> tuple[float, int, NDArray[np.float64]]:
    """Summed association of the true thing tubes, their number, and pixels by true and predicted class (K, K + 1).

    areas: (G, P) pixels of a whole video by true and predicted tube. *_classes: (G,) and (P,), -1 for void; void
    predictions are the last column, void truth is left out. is_crowd: (G,), things nobody told apart: no tubes.
    """
    num_classes = len(is_thing)
    confusion = np.zeros((num_classes, num_classes + 1))
    valid = truth_classes >= 0
    columns = np.where(prediction_classes >= 0, prediction_classes, num_classes)
    np.add.at(confusion, (truth_classes[valid][:, None], columns[None]), areas[valid])
    # The class -1 looks up the last entry.
    things = np.append(is_thing, False)
    is_crowd = is_crowd & things[truth_classes]
    # Predictions in crowds are neither right nor wrong.
    tubes = areas[~is_crowd][:, things[prediction_classes]]
    is_tube = things[truth_classes[~is_crowd]] & (areas[~is_crowd].sum(1) > 0)
    true_areas = areas[~is_crowd].sum(1)[is_tube]
    shared = tubes[is_tube]
    unions = true_areas[:, None] + tubes.sum(0) - shared
    association = (shared * shared / unions).sum(1) / true_areas
    return float(association.sum()), len(true_areas), confusion


def class_ious(confusion: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU per class (K,), NaN where it occurs neither in truth nor in predictions."""
    hits = np.diagonal(confusion)
    unions = confusion.sum(1) + confusion[:, :-1].sum(0) - hits
    return np.divide(hits, unions, out=np.full(len(hits), np.nan), where=unions > 0)


class SegmentationTrackingQuality(TubeMetric):
    """STQ (Weber et al. 2021), as deeplab2 counts it: the geometric mean of association and segmentation quality.

    Tubes go through whole videos. Where void is predicted on labelled pixels, void is one more class with an IoU of 0,
    so that a model that leaves pixels out is punished twice: as in deeplab2. Crowds are things without identity: class counts, association does not.
    """

    def __init__(self, num_classes: int, is_thing: Sequence[bool] | None = None) -> None:
        super().__init__(num_classes, is_thing)
        self.sequences: list[SequenceCounts] = []

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self._agree(other)
        self.sequences += other.sequences

    def compute(self) -> dict[str, float]:
        """`stq`, `aq`, `sq` (mean IoU of classes) in [0, 1] over all videos; NaN before the first labelled pixel."""
        return _figures(self.sequences)

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """`iou` per class (K,), NaN where it occurs nowhere."""
        if not self.sequences:
            return {"iou": np.full(self.num_classes, np.nan)}
        return {"iou": class_ious(_sum_confusions(self.sequences))}

    def per_sequence(self) -> dict[str, dict[str, float]]:
        """`stq`, `aq`, `sq` and `num_frames` of each video by its name."""
        return {
            sequence.name: {**_figures([sequence]), "num_frames": sequence.num_frames} for sequence in self.sequences
        }

    def _count_video(
        self,
        tubes: TubeOverlaps,
        prediction_classes: Mapping[int, int],
        truth_classes: Mapping[int, int],
        crowd_ids: Sequence[int],
    ) -> None:
        is_thing = self.is_thing if self.is_thing is not None else (True,) * self.num_classes
        association, num_tubes, confusion = count_video(
            tubes.total(),
            classes_of(list(tubes.rows), truth_classes, self.num_classes, "truth"),
            classes_of(list(tubes.columns), prediction_classes, self.num_classes, "prediction"),
            np.array(is_thing),
            np.isin(list(tubes.rows), list(crowd_ids)),
        )
        name = str(len(self.sequences))
        self.sequences.append(SequenceCounts(name, tubes.num_frames, association, num_tubes, confusion))


def _sum_confusions(sequences: Sequence[SequenceCounts]) -> NDArray[np.float64]:
    return np.sum([sequence.confusion for sequence in sequences], axis=0)


def _figures(sequences: Sequence[SequenceCounts]) -> dict[str, float]:
    if not sequences:
        return dict.fromkeys(("stq", "aq", "sq"), float("nan"))
    num_tubes = sum(sequence.num_tubes for sequence in sequences)
    # Without a single tube deeplab2 divides 0 by a tiny number: 0.
    association = sum(sequence.association for sequence in sequences) / max(num_tubes, 1)
    confusion = _sum_confusions(sequences)
    ious = class_ious(confusion)
    # Where void is predicted on labelled pixels, deeplab2 counts void as one more class, with an IoU of 0.
    num_classes = np.count_nonzero(~np.isnan(ious)) + int(confusion[:, -1].any())
    segmentation = float(np.nansum(ious)) / num_classes if num_classes else float("nan")
    return {"stq": float(np.sqrt(association * segmentation)), "aq": association, "sq": segmentation}
