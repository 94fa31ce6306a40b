"""Average precision and recall as COCO defines them, of masks, boxes and boundaries; overlaps by pycocotools."""

from __future__ import annotations

from abc import ABC, abstractmethod
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.metrics.boundary import DILATION_RATIO, boundary_of
from omg_transformers.metrics.detection_matching import (
    COCO_RULES,
    MatchTable,
    figures_per_class,
    group_by_class,
    twelve_figures,
)
from omg_transformers.metrics.run_lengths import counts_as_bytes, faults_of_counts

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from omg_transformers.metrics.detection_matching import Group, MatchingRules, Record
    from omg_transformers.structures import RLE, Annotation, Segments

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
RECALL_NAMES = ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")
KINDS = ("segm", "bbox", "boundary")


def coco_figures(
    truths: Sequence[Sequence[dict[str, Any]]],
    predictions: Sequence[Sequence[dict[str, Any]]],
    num_classes: int,
    *,
    kind: str = "segm",
) -> dict[str, float]:
    """COCO's twelve figures, NaN where undefined.

    truths, predictions: per picture the records {"category_id", "segmentation": RLE, "area", "iscrowd" or "score"}.
    """
    table = MatchTable(num_classes, COCO_RULES)
    for picture, (objects, results) in enumerate(zip(truths, predictions, strict=True)):
        table.add(group_records(objects, results, kind), key=picture)
    return named_figures(*table.accumulate())


def named_figures(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    """The twelve figures of precision (T, R, K, A, M) and recall (T, K, A, M) by name."""
    return dict(zip(NAMES + RECALL_NAMES, twelve_figures(precision, recall), strict=True))


def group_records(
    truths: Sequence[dict[str, Any]],
    results: Sequence[dict[str, Any]],
    kind: str = "segm",
    *,
    dilation_ratio: float = DILATION_RATIO,
) -> list[Group]:
    """Overlaps of one picture's records, class by class, ready for `MatchTable.add`.

    Records hold "category_id" (index of the class), "area", "segmentation" (RLE; for "bbox": "bbox" as x, y, width,
    height), results a "score", truths "iscrowd" and, if known, "ignore" (honoured for boundaries only, as the
    reference programs do) and "id".
    """
    check_kind(kind)
    return group_by_class(
        truths,
        results,
        lambda found, objects, is_crowd: _overlaps(found, objects, is_crowd, kind, dilation_ratio),
        itemgetter("area"),
        with_ignored=kind == "boundary",
    )


def check_kind(kind: str) -> None:
    """Refuse what is neither of masks, boxes and boundaries."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")


class AveragePrecision(ABC):
    """What the average precisions of pictures and of videos share: samples are matched as they come.

    The state is 15 bytes per result, no mask.
    """

    def __init__(self, num_classes: int, rules: MatchingRules) -> None:
        self.num_classes = num_classes
        self.table = MatchTable(num_classes, rules)

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one sample. Stuff is not judged; nor are segments without a class.

        key: the sample's name or number. With keys, results of equal score keep the samples' order on any number of
        processes, and no sample can count twice.
        """
        rles, labels, scores = scored_masks(prediction, annotation, self.num_classes)
        truths = [
            {
                **self._shape(segment.masks, annotation.size),
                "category_id": segment.category_id,
                "iscrowd": segment.is_crowd,
            }
            for segment in annotation.segments
            if segment.category_id >= 0 and annotation.is_thing[segment.category_id] and any(segment.masks)
        ]
        results = [
            {**self._shape(masks, annotation.size), "category_id": label, "score": score}
            for masks, label, score in zip(rles, labels, scores, strict=True)
            if label >= 0 and annotation.is_thing[label]
        ]
        self.update_records(truths, results, key=key)

    @abstractmethod
    def update_records(
        self, truths: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], *, key: Hashable = None
    ) -> None:
        """Count one sample from plain records."""

    @abstractmethod
    def _shape(self, rles: tuple[RLE | None, ...], size: tuple[int, int]) -> dict[str, Any]:
        """What a record says of a mask."""

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        self.table.merge(other.table)

    def compute(self) -> dict[str, float]:
        """`ap` first, then AP at fixed IoU and by size, and average recalls with 1, 10 and 100 results per sample."""
        return named_figures(*self.table.accumulate())

    def per_class(self) -> dict[str, NDArray[np.float64]]:
        """`ap`, `ap50`, `ap75`, `ar100`, each (K,); NaN for classes without a true object."""
        return figures_per_class(*self.table.accumulate())


class MaskAveragePrecision(AveragePrecision):
    """COCO's AP over IoU 0.5 to 0.95, of masks ("segm"), boxes ("bbox") or boundaries. The frames of a clip are one
    mask.
    """

    def __init__(self, num_classes: int, *, kind: str = "segm", dilation_ratio: float = DILATION_RATIO) -> None:
        check_kind(kind)
        super().__init__(num_classes, COCO_RULES)
        self.kind = kind
        self.dilation_ratio = dilation_ratio

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """As in `AveragePrecision`; boundaries are of pictures only."""
        if self.kind == "boundary" and annotation.num_frames > 1:
            raise ValueError(
                f"a clip of {annotation.num_frames} frames has no boundary AP: score its frames one by one"
            )
        super().update(prediction, annotation, key=key)

    def update_records(
        self, truths: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]], *, key: Hashable = None
    ) -> None:
        """Count one picture from plain records, see `group_records`."""
        self.table.add(group_records(truths, results, self.kind, dilation_ratio=self.dilation_ratio), key)

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if (other.kind, other.dilation_ratio) != (self.kind, self.dilation_ratio):
            raise ValueError(f"merged metrics are of kind {self.kind!r} and {other.kind!r}: make them equal")
        super().merge(other)

    def _shape(self, rles: tuple[RLE | None, ...], size: tuple[int, int]) -> dict[str, Any]:
        from omg_transformers.ops.masks import join_frames, rle_area

        rle = packed(join_frames(rles, size))
        shape = {"bbox": coco_mask.toBbox(rle).tolist()} if self.kind == "bbox" else {"segmentation": rle}
        return {**shape, "area": rle_area(rle)}


def scored_masks(
    prediction: Segments, annotation: Annotation, num_classes: int
) -> tuple[tuple[tuple[RLE | None, ...], ...], list[int], list[float]]:
    """Masks, labels and scores of a result that may overlap, after checking them and the annotation."""
    from omg_transformers.metrics.maps import require_classes

    require_classes(annotation, num_classes)
    if tuple(prediction.size) != tuple(annotation.size):
        raise ValueError(f"prediction has size {prediction.size}, the annotation {annotation.size}: make them equal")
    if prediction.rles is None:
        raise ValueError("prediction has no rles: this metric needs one scored mask per object (instance)")
    labels, scores = prediction.labels.tolist(), prediction.scores.tolist()
    if labels and not max(labels) < num_classes:
        raise ValueError(f"prediction has label {max(labels)}, the metric counts {num_classes} classes")
    if not np.isfinite(scores).all():
        raise ValueError(f"prediction.scores holds {scores[int(np.argmin(np.isfinite(scores)))]}: expected numbers")
    _check_masks("prediction.rles", prediction.rles, annotation)
    _check_masks("the annotation's masks", [segment.masks for segment in annotation.segments], annotation)
    return prediction.rles, labels, scores


def packed(rle: RLE) -> RLE:
    """The RLE with its counts as bytes, as pycocotools takes them."""
    return {"size": list(rle["size"]), "counts": counts_as_bytes(rle["counts"]) or b""}


def _check_masks(name: str, segments: Sequence[Sequence[RLE | None]], annotation: Annotation) -> None:
    size = tuple(annotation.size)
    places, counts = [], []
    for index, rles in enumerate(segments):
        if len(rles) != annotation.num_frames:
            raise ValueError(f"{name}[{index}] has {len(rles)} frames, the annotation {annotation.num_frames}")
        for frame, rle in enumerate(rles):
            if rle is None:
                continue
            if tuple(rle["size"]) != size:
                raise ValueError(f"{name}[{index}], frame {frame}, has size {tuple(rle['size'])}, expected {size}")
            places.append((index, frame))
            counts.append(counts_as_bytes(rle["counts"]) or b"")
    faults = faults_of_counts(counts, [size[0] * size[1]] * len(counts))
    for row, reason in faults.items():
        raise ValueError(f"{name}[{places[row][0]}], frame {places[row][1]}: {reason}")


def _overlaps(
    results: Sequence[Record],
    truths: Sequence[Record],
    is_crowd: NDArray[np.bool_],
    kind: str,
    dilation_ratio: float,
) -> NDArray[np.float64]:
    """IoU (D, G); with a crowd, the share of the result inside it."""
    if not results or not truths:
        return np.zeros((len(results), len(truths)))
    crowd = is_crowd.tolist()
    if kind == "bbox":
        boxes = [np.array([record["bbox"] for record in records], dtype=np.float64) for records in (results, truths)]
        return np.asarray(coco_mask.iou(*boxes, crowd))
    masks = [[record["segmentation"] for record in records] for records in (results, truths)]
    ious = np.asarray(coco_mask.iou(*masks, crowd))
    if kind == "segm":
        return ious
    rims = [[_rim(rle, dilation_ratio) for rle in rles] for rles in masks]
    # As published, a crowd is a region without a boundary of its own.
    return np.where(is_crowd, ious, np.minimum(ious, np.asarray(coco_mask.iou(*rims, crowd))))


def _rim(rle: RLE, dilation_ratio: float) -> dict[str, Any]:
    mask = np.asarray(coco_mask.decode(rle)).astype(bool)
    rim: dict[str, Any] = coco_mask.encode(np.asfortranarray(boundary_of(mask, dilation_ratio), dtype=np.uint8))
    return rim
