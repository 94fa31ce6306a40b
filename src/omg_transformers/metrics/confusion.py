"""Which classes are taken for which, pixel by pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from omg_transformers.metrics.average_precision import scored_masks
from omg_transformers.metrics.maps import id_map_of, labels_by_id, paint_segments, require_classes
from omg_transformers.metrics.semantic import count_all_pixels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from omg_transformers.structures import Annotation, Segment, Segments

UNCOUNTED = -1


class PixelConfusion:
    """Pixels by true and predicted class: `matrix` (K + 1, K + 1) int64, [true, predicted].

    Last row: no class is annotated there. Last column: nothing is predicted. Void, crowds and annotated segments
    without a class count nowhere, except where a single object covers them.
    Results that do not overlap (`id_map`: semantic, panoptic) are compared with things and stuff. Of results that may
    overlap (`rles`: instances) the best score wins each pixel, and only things are compared, as in average precision:
    stuff, annotated or not, is "no class". The frames of a clip count like pictures, one at a time.
    """

    def __init__(self, num_classes: int) -> None:
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}: give the number of classes, at least 1")
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)

    def update(self, prediction: Segments, annotation: Annotation) -> None:
        """Count one sample. ValueError for another size, number of frames or label space than the annotation's."""
        require_classes(annotation, self.num_classes)
        only_things = prediction.id_map is None
        predicted = self._instances(prediction, annotation) if only_things else _classes(prediction, annotation)
        segments = [
            segment
            for segment in annotation.segments
            if not only_things or segment.category_id < 0 or annotation.is_thing[segment.category_id]
        ]
        # Single objects are the better known ones: they cover crowds, and these cover void.
        segments.sort(key=lambda segment: not (segment.is_crowd or segment.category_id < 0))
        counts = np.zeros_like(self.matrix)
        empty = self.num_classes if annotation.is_exhaustive else UNCOUNTED
        for frame, classes in enumerate(predicted):
            truth = _true_classes(annotation, segments, frame, empty=empty)
            counts += count_all_pixels(classes, truth, self.num_classes, ignore_index=UNCOUNTED)
        self.matrix += counts

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"other counts {other.num_classes} classes, this one {self.num_classes}: make them equal")
        self.matrix += other.matrix

    def _instances(self, prediction: Segments, annotation: Annotation) -> Iterator[NDArray[np.integer]]:
        """The best thing's class at each pixel, K for none; (H, W) per frame."""
        rles, labels, scores = scored_masks(prediction, annotation, self.num_classes)
        is_thing = annotation.is_thing
        worst_first = sorted(range(len(labels)), key=lambda index: (scores[index], -index))
        judged = [index for index in worst_first if labels[index] >= 0 and is_thing[labels[index]]]
        for frame in range(annotation.num_frames):
            painted = ((labels[index], (rles[index][frame],)) for index in judged)
            yield paint_segments(painted, (1, *annotation.size), empty=self.num_classes)[0]


def _classes(prediction: Segments, annotation: Annotation) -> Iterator[NDArray[np.integer]]:
    """The class at each pixel, -1 for none; (H, W) per frame."""
    table = labels_by_id(prediction)
    if table.max() >= annotation.num_classes:
        raise ValueError(f"prediction has label {table.max()}, the annotation {annotation.num_classes} classes")
    for frame in id_map_of(prediction, annotation):
        if frame.min() < 0 or frame.max() >= len(table):
            raise ValueError(
                f"prediction.id_map holds ids {frame.min()} to {frame.max()}, prediction.ids ends at {len(table) - 1}"
            )
        yield table[frame]


def _true_classes(
    annotation: Annotation, segments: Sequence[Segment], frame: int, *, empty: int
) -> NDArray[np.integer]:
    painted = [(UNCOUNTED, (annotation.void[frame],))]
    painted += [
        (UNCOUNTED if segment.is_crowd else segment.category_id, (segment.masks[frame],)) for segment in segments
    ]
    return paint_segments(painted, (1, *annotation.size), empty=empty)[0]
