"""Mask average precision as COCO defines it, counted by pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING, Any, Self

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.structures import RLE, Annotation, Segments

NAMES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
RECALL_NAMES = ("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large")


def coco_figures(
    truths: Sequence[Sequence[dict[str, Any]]], predictions: Sequence[Sequence[dict[str, Any]]], num_classes: int
) -> dict[str, float]:
    """COCO's twelve figures, NaN where undefined.

    truths, predictions: per picture the records {"category_id", "segmentation": RLE, "area", "iscrowd" or "score"}.
    """
    # pycocotools reads the sizes, but uses them only for polygons.
    pictures = [{"id": index, "height": 0, "width": 0} for index in range(1, len(truths) + 1)]
    categories = [{"id": label} for label in range(num_classes)]
    # pycocotools prints its progress and cannot be told not to.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _dataset(truths, pictures, categories), _dataset(predictions, pictures, categories), "segm"
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = zip(NAMES + RECALL_NAMES, evaluation.stats, strict=True)
    return {name: float(value) if value >= 0 else float("nan") for name, value in figures}


class MaskAveragePrecision:
    """COCO's mask AP over IoU 0.5 to 0.95. Keeps run-length encodings only; the frames of a clip are one mask."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.truths: list[list[dict[str, Any]]] = []
        self.predictions: list[list[dict[str, Any]]] = []

    def update(self, prediction: Segments, annotation: Annotation) -> None:
        """Remember one sample. Stuff is not judged; nor are segments without a class."""
        from omg_transformers.metrics.maps import require_classes

        require_classes(annotation, self.num_classes)
        if tuple(prediction.size) != tuple(annotation.size):
            raise ValueError(
                f"prediction has size {prediction.size}, the annotation {annotation.size}: make them equal"
            )
        if prediction.rles is None:
            raise ValueError("prediction has no rles: this metric needs one scored mask per object (instance)")
        self.truths.append(
            [
                {**_record(segment.masks, annotation.size, segment.category_id), "iscrowd": int(segment.is_crowd)}
                for segment in annotation.segments
                if segment.category_id >= 0 and annotation.is_thing[segment.category_id] and any(segment.masks)
            ]
        )
        labels, scores = prediction.labels.tolist(), prediction.scores.tolist()
        self.predictions.append(
            [
                {**_record(rles, annotation.size, label), "score": score}
                for rles, label, score in zip(prediction.rles, labels, scores, strict=True)
                if label >= 0 and annotation.is_thing[label]
            ]
        )

    def merge(self, other: Self) -> None:
        """Add what another process has remembered."""
        self.truths += other.truths
        self.predictions += other.predictions

    def compute(self) -> dict[str, float]:
        """`ap` first, then AP at fixed IoU and by size, and average recalls with 1, 10 and 100 results per picture."""
        if not self.truths:
            return dict.fromkeys(NAMES + RECALL_NAMES, float("nan"))
        return coco_figures(self.truths, self.predictions, self.num_classes)


def _record(rles: tuple[RLE | None, ...], size: tuple[int, int], label: int) -> dict[str, Any]:
    from omg_transformers.ops.masks import join_frames, rle_area

    rle = join_frames(rles, size)
    return {"category_id": label, "segmentation": rle, "area": rle_area(rle)}


def _dataset(
    records: Sequence[Sequence[dict[str, Any]]], pictures: list[dict[str, Any]], categories: list[dict[str, Any]]
) -> COCO:
    """A COCO object. Ids start at 1: pycocotools takes a match with id 0 for none."""
    flat = [(picture, record) for picture, group in zip(pictures, records, strict=True) for record in group]
    data = COCO()
    data.dataset = {
        "images": pictures,
        "categories": categories,
        "annotations": [
            {"iscrowd": 0, "bbox": [0, 0, 0, 0], **record, "id": number, "image_id": picture["id"]}
            for number, (picture, record) in enumerate(flat, 1)
        ],
    }
    data.createIndex()
    return data
