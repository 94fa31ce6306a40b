"""Results and annotations as plain arrays: what the counting functions of the metrics read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from omg_transformers.structures import RLE, Annotation, Segments


def paint_segments(
    segments: Iterable[tuple[int, tuple[RLE | None, ...]]], shape: tuple[int, int, int], *, empty: int = 0
) -> NDArray[np.int32]:
    """A map (T, H, W) from (value, one RLE per frame); later segments cover earlier ones, `empty` elsewhere."""
    painted = np.full(shape, empty, dtype=np.int32)
    for value, rles in segments:
        for frame, rle in enumerate(rles):
            if rle is not None:
                painted[frame][decode(rle)] = value
    return painted


def decode(rle: RLE) -> NDArray[np.bool_]:
    """The mask (H, W) of an RLE."""
    counts: Any = rle["counts"]
    packed = {"size": list(rle["size"]), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}
    return np.asarray(coco_mask.decode(packed)).astype(bool)


def id_map_of(prediction: Segments, annotation: Annotation) -> NDArray[np.int32]:
    """The prediction's ids (T, H, W); refuses overlapping masks and another size than the annotation's."""
    if prediction.id_map is None:
        raise ValueError("prediction has no id_map: this metric needs masks that do not overlap (semantic, panoptic)")
    ids: NDArray[np.int32] = prediction.id_map.detach().cpu().numpy()
    expected = (annotation.num_frames, *annotation.size)
    if ids.shape != expected:
        raise ValueError(
            f"prediction.id_map has shape {ids.shape}, the annotation is (T, H, W) = {expected}: "
            "give the annotation's size as `sizes` to postprocess"
        )
    return ids


def labels_by_id(prediction: Segments) -> NDArray[np.int64]:
    """The class of each id from 0 to the largest, -1 where there is none: `labels_by_id(prediction)[id_map]`."""
    ids = prediction.ids.detach().cpu().numpy()
    table = np.full(int(ids.max(initial=0)) + 1, -1, dtype=np.int64)
    table[ids] = prediction.labels.detach().cpu().numpy()
    return table


def require_classes(annotation: Annotation, num_classes: int) -> None:
    """Refuse an annotation of another label space."""
    if annotation.num_classes != num_classes:
        raise ValueError(f"the annotation has {annotation.num_classes} classes, the metric counts {num_classes}")
