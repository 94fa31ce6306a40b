"""Panoptic quality, counted as panopticapi counts it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.maps import id_map_of, paint_segments, require_classes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segments

VOID = 0


@dataclass(slots=True)
class PanopticCounts:
    """Per class (K,): summed IoU of the matches, true positives, false positives, false negatives."""

    iou: NDArray[np.float64]
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]

    @classmethod
    def zeros(cls, num_classes: int) -> PanopticCounts:
        """Nothing counted yet."""
        return cls(np.zeros(num_classes), *(np.zeros(num_classes, dtype=np.int64) for _ in range(3)))

    def add(self, other: PanopticCounts) -> None:
        """Add other counts in place."""
        self.iou += other.iou
        self.true_positives += other.true_positives
        self.false_positives += other.false_positives
        self.false_negatives += other.false_negatives


def count_matches(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    prediction_classes: Mapping[int, int],
    truth_classes: Mapping[int, int],
    *,
    num_classes: int,
    crowd_ids: Sequence[int] = (),
) -> PanopticCounts:
    """Match the segments of one picture or clip: same class and IoU above 0.5.

    prediction, truth: id maps of one shape, 0 = void. *_classes: class of each id that occurs. crowd_ids: ids of
    `truth` that are crowds: they are never matched or missed. The void part of a prediction is left out of its union,
    and one that lies mostly in void or in a crowd of its class is not counted at all; of several crowds of a class
    only the last one excuses predictions, as in panopticapi.
    """
    counts = PanopticCounts.zeros(num_classes)
    overlaps = _overlaps(prediction, truth)
    true_area, predicted_area = _sums(overlaps, 1), _sums(overlaps, 0)
    matched_truth: set[int] = set()
    matched: set[int] = set()
    for (predicted, actual), intersection in overlaps.items():
        label = truth_classes.get(actual)
        if VOID in (predicted, actual) or actual in crowd_ids or prediction_classes.get(predicted) != label:
            continue
        in_void = overlaps.get((predicted, VOID), 0)
        iou = intersection / (predicted_area[predicted] + true_area[actual] - intersection - in_void)
        if iou > 0.5 and label is not None:
            counts.true_positives[label] += 1
            counts.iou[label] += iou
            matched_truth.add(actual)
            matched.add(predicted)
    for actual in true_area.keys() - matched_truth - {VOID} - set(crowd_ids):
        counts.false_negatives[truth_classes[actual]] += 1
    crowd_of_class = {truth_classes[crowd]: crowd for crowd in crowd_ids}
    for predicted in predicted_area.keys() - matched - {VOID}:
        label = prediction_classes[predicted]
        in_crowd = overlaps.get((predicted, crowd_of_class[label]), 0) if label in crowd_of_class else 0
        ignored = overlaps.get((predicted, VOID), 0) + in_crowd
        if ignored / predicted_area[predicted] <= 0.5:
            counts.false_positives[label] += 1
    return counts


def qualities(counts: PanopticCounts) -> dict[str, NDArray[np.float64]]:
    """`pq`, `sq`, `rq` per class (K,), NaN for classes that occur nowhere; sq is 0 without a match."""
    hits = counts.true_positives
    weight = hits + 0.5 * counts.false_positives + 0.5 * counts.false_negatives
    occurs = weight > 0
    missing = np.full(len(hits), np.nan)
    return {
        "pq": np.divide(counts.iou, weight, out=missing.copy(), where=occurs),
        "sq": np.where(occurs, counts.iou / np.maximum(hits, 1), np.nan),
        "rq": np.divide(hits, weight, out=missing.copy(), where=occurs),
    }


class PanopticQuality:
    """Panoptic quality. A clip's segments are matched as tubes through all its frames."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = PanopticCounts.zeros(num_classes)
        self.is_thing: tuple[bool, ...] | None = None

    def update(self, prediction: Segments, annotation: Annotation) -> None:
        """Count one sample. Segments without a class (label -1) are not judged."""
        require_classes(annotation, self.num_classes)
        self._remember_things(annotation.is_thing)
        ids = id_map_of(prediction, annotation)
        truth, classes, crowds = _numbered(annotation)
        predicted = dict(zip(prediction.ids.tolist(), prediction.labels.tolist(), strict=True))
        nameless = [number for number, label in predicted.items() if label < 0]
        self.counts.add(
            count_matches(
                np.where(np.isin(ids, nameless), VOID, ids),
                truth,
                predicted,
                classes,
                num_classes=self.num_classes,
                crowd_ids=crowds,
            )
        )

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if other.is_thing is not None:
            self._remember_things(other.is_thing)
        self.counts.add(other.counts)

    def compute(self) -> dict[str, float]:
        """`pq`, `sq`, `rq` averaged over the classes that occur, `pq_things`, `pq_stuff`."""
        values = qualities(self.counts)
        figures = {name: _mean(per_class) for name, per_class in values.items()}
        is_thing = np.array(self.is_thing if self.is_thing is not None else [True] * self.num_classes, dtype=bool)
        figures["pq_things"] = _mean(values["pq"][is_thing])
        figures["pq_stuff"] = _mean(values["pq"][~is_thing])
        return figures

    def _remember_things(self, is_thing: tuple[bool, ...]) -> None:
        if self.is_thing is not None and self.is_thing != tuple(is_thing):
            raise ValueError("annotations disagree about which classes are things: score each label space by itself")
        self.is_thing = tuple(is_thing)


def _numbered(annotation: Annotation) -> tuple[NDArray[np.int32], dict[int, int], list[int]]:
    """The annotation as an id map, the class of each id, and the ids of crowds: one per class, for all its crowds."""
    classes: dict[int, int] = {}
    crowds: dict[int, int] = {}
    painted = []
    # Crowds first: where annotations overlap, the single object is the better known one.
    for number, segment in enumerate(sorted(annotation.segments, key=lambda segment: not segment.is_crowd), 1):
        label = segment.category_id
        identity = VOID if label < 0 else number
        if identity and segment.is_crowd:
            identity = crowds.setdefault(label, number)
        classes[identity] = label
        painted.append((identity, segment.masks))
    truth = paint_segments(painted, (annotation.num_frames, *annotation.size))
    return truth, classes, list(crowds.values())


def _overlaps(prediction: NDArray[np.integer], truth: NDArray[np.integer]) -> dict[tuple[int, int], int]:
    """Pixels by (predicted id, true id), pairs that occur only."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal")
    base = int(truth.max(initial=0)) + 1
    pairs, areas = np.unique(prediction.astype(np.int64) * base + truth, return_counts=True)
    return {(int(pair) // base, int(pair) % base): int(area) for pair, area in zip(pairs, areas, strict=True)}


def _sums(overlaps: Mapping[tuple[int, int], int], axis: int) -> dict[int, int]:
    sums: dict[int, int] = {}
    for pair, area in overlaps.items():
        sums[pair[axis]] = sums.get(pair[axis], 0) + area
    return sums


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
