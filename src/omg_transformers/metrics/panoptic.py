"""Panoptic quality, counted as panopticapi counts it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import numpy as np

from omg_transformers.metrics.maps import id_map_of, paint_segments, require_classes
from omg_transformers.metrics.ratios import mean_of_known, ratios

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segments

VOID = 0
MAX_ID = 2**31 - 1
# Up to here one counter per possible pair of ids is cheaper than sorting the pairs that occur.
MAX_COUNTERS = 2**20
PIECE = 2**16
# Of each pair that occurs: true id, predicted id, pixels.
Pairs: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]"
# Scene, row and column of the segments that belong together, and their IoU.
Matches: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]"


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

    @classmethod
    def of_matches(
        cls,
        matches: Matches,
        is_missed: NDArray[np.bool_],
        is_wrong: NDArray[np.bool_],
        truth_classes: NDArray[np.int64],
        prediction_classes: NDArray[np.int64],
        num_classes: int,
    ) -> PanopticCounts:
        """Count matches, and what is missed (W, G) and wrong (W, P) unless it is matched; both are written to."""
        scene, row, column, ious = matches
        is_missed[scene, row] = False
        is_wrong[scene, column] = False
        labels = truth_classes[row]
        return cls(
            np.bincount(labels, weights=ious, minlength=num_classes).astype(np.float64),
            np.bincount(labels, minlength=num_classes),
            np.bincount(np.broadcast_to(prediction_classes, is_wrong.shape)[is_wrong], minlength=num_classes),
            np.bincount(np.broadcast_to(truth_classes, is_missed.shape)[is_missed], minlength=num_classes),
        )

    def add(self, other: PanopticCounts) -> None:
        """Add other counts in place."""
        if len(self.iou) != len(other.iou):
            raise ValueError(f"counts of {len(other.iou)} classes cannot be added to counts of {len(self.iou)} classes")
        self.iou += other.iou
        self.true_positives += other.true_positives
        self.false_positives += other.false_positives
        self.false_negatives += other.false_negatives

    def qualities(self) -> dict[str, NDArray[np.float64]]:
        """`pq`, `sq`, `rq` per class (K,), NaN for classes that occur nowhere; sq is 0 without a match."""
        hits = self.true_positives
        weight = hits + 0.5 * self.false_positives + 0.5 * self.false_negatives
        return {
            "pq": ratios(self.iou, weight),
            "sq": np.where(weight > 0, self.iou / np.maximum(hits, 1), np.nan),
            "rq": ratios(hits, weight),
        }

    def average(self, is_thing: Sequence[bool] | None) -> dict[str, float]:
        """`pq`, `sq`, `rq` over the classes that occur, then the same with `_things` and `_stuff`; NaN where none does.

        Without is_thing every class is a thing.
        """
        things = np.ones(len(self.iou), dtype=bool) if is_thing is None else np.array(is_thing, dtype=bool)
        groups = {"": np.ones(len(things), dtype=bool), "_things": things, "_stuff": ~things}
        return {
            name + suffix: mean_of_known(values[group])
            for suffix, group in groups.items()
            for name, values in self.qualities().items()
        }

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Per class (K,): the `qualities`, then `iou` (summed), `tp`, `fp`, `fn`."""
        return {
            **self.qualities(),
            "iou": self.iou.copy(),
            "tp": self.true_positives.copy(),
            "fp": self.false_positives.copy(),
            "fn": self.false_negatives.copy(),
        }


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Pixels shared by true and predicted segments, in W scenes of the same segments (a picture, windows of a video).

    areas: (W, G, P) int64; row 0 and column 0 are void. truth_classes: (G,), prediction_classes: (P,), -1 for void and
    for segments without a class. truth_areas: (W, G) where it is not the sum of the row. is_crowd: (G,) bool.
    excuses: (W, K) or (1, K), per class the row of the crowd that excuses predictions, 0 for none.
    """

    areas: NDArray[np.int64]
    truth_classes: NDArray[np.int64]
    prediction_classes: NDArray[np.int64]
    is_crowd: NDArray[np.bool_]
    excuses: NDArray[np.int64]
    truth_areas: NDArray[np.int64]

    def pairs(self) -> tuple[NDArray[np.int64], ...]:
        """(scene, row, column) of the segments that overlap and may match: of one class, no crowd."""
        label = self.truth_classes[:, None]
        may_match = (label == self.prediction_classes[None]) & (label >= 0) & ~self.is_crowd[:, None]
        return np.nonzero((self.areas > 0) & may_match)

    def ious(self, scene: NDArray[np.int64], row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.float64]:
        """IoU of pairs; the void part of a prediction is left out of the union."""
        shared = self.areas[scene, row, column]
        predicted = self.areas.sum(1)[scene, column] - self.areas[scene, 0, column]
        return shared / (predicted + self.truth_areas[scene, row] - shared)


def count_overlaps(
    prediction: NDArray[np.integer],
    truth: NDArray[np.integer],
    weights: NDArray[np.floating] | None = None,
    *,
    bits: int = -1,
) -> Pairs:
    """The pairs (true id, predicted id) that occur in two id maps of one shape, and their pixels (or summed weights).

    bits: a mask of the bits that are the id, -1 for all. Refuses maps of different shapes, ids below 0 and above
    2**31 - 1.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, truth {truth.shape}: they must be equal")
    prediction, truth = prediction.reshape(-1), truth.reshape(-1)
    starts = _starts_of_runs(prediction, truth)
    true_ids = _checked_ids(truth[starts], "truth", bits)
    predicted_ids = _checked_ids(prediction[starts], "prediction", bits)
    if weights is None:
        sizes = np.diff(starts, append=len(truth)).astype(np.float64)
    elif weights.size != len(truth):
        raise ValueError(f"weights has {weights.size} values for {len(truth)} pixels: give one per pixel")
    else:
        sizes = np.add.reduceat(weights.reshape(-1), starts) if len(starts) else np.zeros(0)
    base = int(predicted_ids.max(initial=0)) + 1
    keys = true_ids * base + predicted_ids
    if int(true_ids.max(initial=0)) < MAX_COUNTERS // base:
        totals = np.bincount(keys, weights=sizes)
        # Weights may be zero, and then the pair still occurs.
        keys = np.flatnonzero(np.bincount(keys))
        totals = totals[keys]
    else:
        found = np.unique(keys)
        # Looking the few pairs up is cheaper than the inverse of `unique`, which sorts.
        totals = np.bincount(np.searchsorted(found, keys), weights=sizes)
        keys = found
    return keys // base, keys % base, totals.astype(np.float64)


def _starts_of_runs(prediction: NDArray[np.integer], truth: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where a run of pixels of one pair starts: neighbours mostly belong together, and runs are few."""
    starts = []
    # Piece by piece, so that what is compared stays in the processor's cache.
    for first in range(0, len(truth), PIECE):
        piece = slice(first, first + PIECE)
        predicted, actual = prediction[piece], truth[piece]
        is_new = np.ones(len(actual), dtype=bool)
        np.not_equal(predicted[1:], predicted[:-1], out=is_new[1:])
        is_new[1:] |= actual[1:] != actual[:-1]
        starts.append(np.flatnonzero(is_new) + first)
    return np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)


def match_overlaps(overlaps: Overlaps, num_classes: int, *, stricter: Sequence[Overlaps] = ()) -> PanopticCounts:
    """Match segments of the same class with an IoU above 0.5, and count as panopticapi does.

    A prediction that lies mostly in void or in the crowd of its class does not count. `stricter`: overlaps of the same
    segments by other measures; a pair has the least of its IoUs.
    """
    scene, row, column = overlaps.pairs()
    ious = overlaps.ious(scene, row, column)
    for other in stricter:
        ious = np.minimum(ious, other.ious(scene, row, column))
    is_match = ious > 0.5
    matches = scene[is_match], row[is_match], column[is_match], ious[is_match]
    num_scenes, _, num_predictions = overlaps.areas.shape
    is_missed = (overlaps.truth_areas > 0) & ~overlaps.is_crowd & (overlaps.truth_classes >= 0)
    areas = overlaps.areas.sum(1)
    excuses = np.broadcast_to(overlaps.excuses, (num_scenes, num_classes))[:, overlaps.prediction_classes]
    columns = np.arange(num_predictions)
    ignored = overlaps.areas[:, 0] + np.where(
        excuses > 0, overlaps.areas[np.arange(num_scenes)[:, None], excuses, columns], 0
    )
    is_wrong = (areas > 0) & (overlaps.prediction_classes >= 0) & (2 * ignored <= areas)
    return PanopticCounts.of_matches(
        matches, is_missed, is_wrong, overlaps.truth_classes, overlaps.prediction_classes, num_classes
    )


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture, or a clip with tubes through all its frames.

    prediction, truth: id maps of one shape, 0 = void. *_classes: class of each id that occurs, -1 for none. crowd_ids:
    ids of `truth` that are crowds: they are never matched or missed. truth_areas: areas of the true segments where they
    are not to be counted in `truth`; segments that are only here are missed. pairs: what `count_overlaps` has found in
    these maps, where that is known.
    """

    prediction: NDArray[np.integer]
    truth: NDArray[np.integer]
    prediction_classes: Mapping[int, int]
    truth_classes: Mapping[int, int]
    crowd_ids: Sequence[int] = ()
    truth_areas: Mapping[int, int] | None = None
    pairs: Pairs | None = None

    def overlaps(self, num_classes: int) -> Overlaps:
        """The scene's overlaps; of several crowds of a class only the last one excuses, as in panopticapi."""
        pairs = self.pairs if self.pairs is not None else count_overlaps(self.prediction, self.truth)
        true_ids, predicted_ids, totals = pairs
        row_ids = sorted({VOID, *true_ids.tolist(), *self.crowd_ids, *(self.truth_areas or ())})
        column_ids = sorted({VOID, *predicted_ids.tolist()})
        areas = np.zeros((1, len(row_ids), len(column_ids)), dtype=np.int64)
        areas[0, np.searchsorted(row_ids, true_ids), np.searchsorted(column_ids, predicted_ids)] = totals
        row_classes = classes_of(row_ids, self.truth_classes, num_classes, "truth")
        column_classes = classes_of(column_ids, self.prediction_classes, num_classes, "prediction")
        crowds = np.searchsorted(row_ids, np.array(list(self.crowd_ids), dtype=np.int64))
        is_crowd = np.zeros(len(row_ids), dtype=bool)
        is_crowd[crowds] = True
        excuses = np.zeros((1, num_classes), dtype=np.int64)
        excuses[0, row_classes[crowds]] = crowds
        given = self.truth_areas
        truth_areas = areas.sum(2) if given is None else np.array([[given.get(identity, 0) for identity in row_ids]])
        return Overlaps(areas, row_classes, column_classes, is_crowd, excuses, truth_areas)


def classes_of(ids: Sequence[int], classes: Mapping[int, int], num_classes: int, name: str) -> NDArray[np.int64]:
    """The class of each id, -1 for void; refuses ids and classes that are not known. `name` is for the message."""
    missing = [identity for identity in ids if identity != VOID and identity not in classes]
    if missing:
        raise ValueError(f"{name} holds ids without a class: {missing[:5]}: give the class of every id that occurs")
    labels = np.array([-1 if identity == VOID else classes[identity] for identity in ids], dtype=np.int64)
    if labels.max(initial=-1) >= num_classes or labels.min(initial=0) < -1:
        raise ValueError(
            f"{name} has classes {labels.min()} to {labels.max()}: expected -1 (none) to {num_classes - 1}"
        )
    return labels


class SegmentMetric(ABC):
    """How `Segments` come into a metric of id maps.

    Which classes are things is given, or learnt from the first annotation; another answer later is an error.
    """

    def __init__(self, num_classes: int, is_thing: Sequence[bool] | None = None) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: expected at least 1")
        if is_thing is not None and len(is_thing) != num_classes:
            raise ValueError(f"is_thing has {len(is_thing)} entries for {num_classes} classes: give one per class")
        self.num_classes = num_classes
        self.is_thing: tuple[bool, ...] | None = None if is_thing is None else tuple(map(bool, is_thing))

    def update(
        self,
        prediction: Segments,
        annotation: Annotation,
        *,
        key: Hashable = None,  # noqa: ARG002 - part of the contract
    ) -> None:
        """Count one sample. Segments without a class (label -1) are not judged."""
        require_classes(annotation, self.num_classes)
        self._remember_things(annotation.is_thing)
        ids = id_map_of(prediction, annotation)
        truth, classes, crowds = number_segments(annotation)
        predicted = dict(zip(prediction.ids.tolist(), prediction.labels.tolist(), strict=True))
        self.update_maps(ids, truth, predicted, classes, crowd_ids=crowds)

    @abstractmethod
    def update_maps(
        self,
        prediction: NDArray[np.integer],
        truth: NDArray[np.integer],
        prediction_classes: Mapping[int, int],
        truth_classes: Mapping[int, int],
        *,
        crowd_ids: Sequence[int] = (),
    ) -> None:
        """Count one sample given as id maps (T, H, W), 0 = void, and the class of each id that occurs."""

    def _remember_things(self, is_thing: tuple[bool, ...]) -> None:
        if self.is_thing not in (None, is_thing):
            raise ValueError("the annotations disagree on which classes are things: use one metric per label space")
        self.is_thing = is_thing

    def _agree(self, other: SegmentMetric) -> None:
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge a metric of {other.num_classes} classes into one of {self.num_classes}")
        if other.is_thing is not None:
            self._remember_things(other.is_thing)


class PanopticQuality(SegmentMetric):
    """Panoptic quality. A clip's segments are matched as tubes through all its frames."""

    def __init__(self, num_classes: int, is_thing: Sequence[bool] | None = None) -> None:
        super().__init__(num_classes, is_thing)
        self.counts = PanopticCounts.zeros(num_classes)

    def update_maps(
        self,
        prediction: NDArray[np.integer],
        truth: NDArray[np.integer],
        prediction_classes: Mapping[int, int],
        truth_classes: Mapping[int, int],
        *,
        crowd_ids: Sequence[int] = (),
    ) -> None:
        """Count one picture or clip given as id maps of one shape; see `Scene`."""
        self.update_scene(Scene(prediction, truth, prediction_classes, truth_classes, crowd_ids))

    def update_scene(self, scene: Scene) -> None:
        """Count one picture or clip."""
        self.counts.add(match_overlaps(scene.overlaps(self.num_classes), self.num_classes))

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self._agree(other)
        self.counts.add(other.counts)

    def compute(self) -> dict[str, float]:
        """`pq`, `sq`, `rq` averaged over the classes that occur, then `_things` and `_stuff`; NaN where none occurs."""
        return self.counts.average(self.is_thing)

    def per_class(self) -> dict[str, NDArray[Any]]:
        """Per class (K,): `pq`, `sq`, `rq` (NaN where the class occurs nowhere), `iou` (summed), `tp`, `fp`, `fn`."""
        return self.counts.per_class()


def number_segments(annotation: Annotation) -> tuple[NDArray[np.int32], dict[int, int], list[int]]:
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


def _checked_ids(ids: NDArray[np.integer], name: str, bits: int) -> NDArray[np.int64]:
    if not np.issubdtype(ids.dtype, np.integer):
        raise TypeError(f"{name} has dtype {ids.dtype}: expected a map of integer ids, 0 = void")
    if bits >= 0:
        return ids.astype(np.int64) & bits
    if len(ids) and (ids.min() < 0 or ids.max() > MAX_ID):
        raise ValueError(f"{name} holds ids from {ids.min()} to {ids.max()}: expected 0 (void) to {MAX_ID}")
    return ids.astype(np.int64)
