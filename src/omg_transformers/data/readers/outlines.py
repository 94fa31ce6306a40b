"""Polygons and run lengths of annotation files as regions, checked before pycocotools sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.data.regions import merge_regions, region_area
from omg_transformers.data.sources import SampleError
from omg_transformers.metrics.run_lengths import counts_as_bytes, faults_of_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.structures import RLE

# pycocotools walks along the outline in fifths of a pixel: absurd coordinates would fill the memory.
_FARTHEST = 1_000_000


def region_of_polygons(polygons: Sequence[Any], size: tuple[int, int], *, where: str) -> RLE | None:
    """Union of polygons [x1, y1, x2, y2, ..] in pixels, cut off at the border of the picture.

    None when they are too thin to cover the centre of a pixel. where: file and object, for errors. Raises SampleError
    for fewer than 3 points, numbers that are not finite, and an outline that lies outside as a whole.
    """
    if not polygons:
        raise SampleError(f"{where} has no polygon: expected at least one, or an RLE. Boxes alone are no masks")
    outlines = [_checked(polygon, where) for polygon in polygons]
    points = np.concatenate(outlines).reshape(-1, 2)
    height, width = size
    low, high = points.min(0), points.max(0)
    if high[0] < 0 or high[1] < 0 or low[0] > width or low[1] > height:
        raise SampleError(
            f"{where} lies outside the picture: x from {low[0]:g} to {high[0]:g}, y from {low[1]:g} to {high[1]:g}, "
            f"but the picture is {width} wide and {height} high. Are its coordinates in pixels of this picture?"
        )
    rles = coco_mask.frPyObjects([outline.tolist() for outline in outlines], height, width)
    regions: list[RLE | None] = [{"size": [height, width], "counts": rle["counts"]} for rle in rles]
    return _if_any(merge_regions(regions))


def region_of_coco(segmentation: Any, size: tuple[int, int], *, where: str) -> RLE | None:
    """A COCO `segmentation`: polygons, or an RLE with compressed or plain counts. Errors as `region_of_polygons`."""
    if isinstance(segmentation, dict):
        return _if_any(_checked_rle(segmentation, size, where))
    if isinstance(segmentation, list):
        # Some tools write one polygon without the list around it.
        is_flat = bool(segmentation) and not isinstance(segmentation[0], (list, dict))
        return region_of_polygons([segmentation] if is_flat else segmentation, size, where=where)
    raise SampleError(f"{where} has segmentation={segmentation!r:.60}: expected polygons or an RLE")


def _checked(polygon: Any, where: str) -> np.ndarray[Any, Any]:
    try:
        values = np.asarray(polygon, np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise SampleError(f"{where} has the polygon {polygon!r:.60}: expected numbers x1, y1, x2, y2, ..") from error
    if len(values) % 2 or len(values) < 6:
        raise SampleError(f"{where} has a polygon of {len(values) / 2:g} points: expected at least 3, each as x, y")
    if not (np.abs(values) < _FARTHEST).all():
        raise SampleError(f"{where} has a polygon with {values[np.abs(values).argmax()]:g}: expected pixels")
    return values


def _checked_rle(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> RLE:
    counts, stated = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(stated, (list, tuple)) or tuple(stated) != tuple(size):
        raise SampleError(f"{where} has an RLE of size {stated}, expected (height, width) of its picture {tuple(size)}")
    height, width = size
    if isinstance(counts, list):
        if not all(isinstance(run, int) and run >= 0 for run in counts) or sum(counts) != height * width:
            raise SampleError(f"{where} has run lengths that do not add up to {height} x {width} pixels")
        return {"size": [height, width], "counts": coco_mask.frPyObjects(segmentation, height, width)["counts"]}
    compressed = counts_as_bytes(counts)
    if compressed is None:
        raise SampleError(f"{where} has counts of type {type(counts).__name__}: expected a text or a list of runs")
    faults = faults_of_counts([compressed], [height * width])
    if faults:
        raise SampleError(f"{where} has a broken RLE: {faults[0]}. The file is damaged or of another picture")
    return {"size": [height, width], "counts": compressed}


def _if_any(rle: RLE | None) -> RLE | None:
    return rle if region_area(rle) else None
