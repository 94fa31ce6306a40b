"""Annotated regions as arrays and as RLE: what readers, composer and transforms share. Numpy only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.structures import RLE, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from omg_transformers.structures import Annotation

Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


def encode_region(mask: np.ndarray[Any, Any]) -> RLE | None:
    """RLE of a bool mask (H, W), None when nothing is inside. Fastest on Fortran order."""
    rle = coco_mask.encode(np.asfortranarray(mask).view(np.uint8))
    height, width = mask.shape
    # An empty mask is a single run.
    if not rle["counts"] or coco_mask.area(rle) == 0:
        return None
    return {"size": [height, width], "counts": rle["counts"]}


def decode_region(rle: RLE | None, size: tuple[int, int]) -> Mask:
    """The mask (H, W) bool, in Fortran order; all False for None. Raises ValueError for an RLE of another size."""
    if rle is None:
        return np.zeros(size, np.bool_, order="F")
    if tuple(rle["size"]) != tuple(size):
        raise ValueError(f"an RLE has size {tuple(rle['size'])}, expected {tuple(size)}: re-encode it at this size")
    mask: Mask = coco_mask.decode(rle).view(np.bool_)
    return mask


def region_area(rle: RLE | None) -> int:
    """Number of pixels inside, 0 for None."""
    return 0 if rle is None else int(coco_mask.area(rle))


def merge_regions(rles: Sequence[RLE | None]) -> RLE | None:
    """Union of regions of one size, None when all are None."""
    present = [rle for rle in rles if rle is not None]
    if len(present) < 2:
        return present[0] if present else None
    merged = coco_mask.merge(present, intersect=False)
    return {"size": list(present[0]["size"]), "counts": merged["counts"]}


def redraw(
    annotation: Annotation,
    size: tuple[int, int],
    change: Callable[[Mask], Mask] | Sequence[Callable[[Mask], Mask]],
    *,
    change_void: Callable[[Mask], Mask] | None = None,
    min_area: int = 1,
) -> Annotation:
    """The annotation after `change` was applied to each mask; all results have `size`. A list: one per frame.

    What keeps fewer than `min_area` pixels in a frame becomes void there: too small to learn, but not background.
    A segment that is left in no frame is dropped. change_void: what happens to void, when it differs.
    """
    changes = [change] * annotation.num_frames if callable(change) else change
    changed_voids = [
        (change_void or turn)(decode_region(rle, annotation.size))
        for turn, rle in zip(changes, annotation.void, strict=True)
    ]
    segments = []
    for segment in annotation.segments:
        masks: list[RLE | None] = []
        for frame, rle in enumerate(segment.masks):
            if rle is None:
                masks.append(None)
                continue
            mask = changes[frame](decode_region(rle, annotation.size))
            area = int(np.count_nonzero(mask))
            if 0 < area < min_area:
                changed_voids[frame] = changed_voids[frame] | mask
            masks.append(encode_region(mask) if area >= min_area else None)
        if any(rle is not None for rle in masks):
            segments.append(replace_masks(segment, masks))
    void = tuple(encode_region(mask) for mask in changed_voids)
    return replace(annotation, size=size, segments=tuple(segments), void=void)


def replace_masks(segment: Segment, masks: Sequence[RLE | None]) -> Segment:
    """The same segment with other masks."""
    return Segment(segment.category_id, tuple(masks), segment.track_id, segment.is_crowd)


def merge_stuff(segments: list[Segment], is_thing: tuple[bool, ...]) -> tuple[Segment, ...]:
    """Stuff of one class is one segment per picture, also after classes were merged; things and crowds stay apart."""
    merged: dict[tuple[int, bool] | int, Segment] = {}
    for place, segment in enumerate(segments):
        is_stuff = segment.category_id >= 0 and not is_thing[segment.category_id]
        key = (segment.category_id, segment.is_crowd) if is_stuff else -1 - place
        first = merged.get(key)
        if first is None:
            merged[key] = segment
            continue
        union = [merge_regions(pair) for pair in zip(first.masks, segment.masks, strict=True)]
        merged[key] = replace_masks(first, union)
    return tuple(merged.values())
