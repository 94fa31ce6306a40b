"""Objects of a clip that jump, grow all at once, vanish for a while, or go on under another id."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.data.doctor.samples import Fault, segment_name
from omg_transformers.data.regions import region_area
from omg_transformers.ops.masks import rle_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from omg_transformers.structures import RLE, Annotation, Sample

# A jump is no overlap at all, and a way of this many of the object's own lengths ...
FAR = 1.0
# ... which is so many times what the object's usual step is.
UNUSUAL = 4.0
AREA_RATIO = 4.0
# Areas of a few pixels change by chance.
SMALL_AREA = 100
SAME_IOU = 0.5


def check_tracks(sample: Sample) -> Iterator[Fault]:
    """The faults of all things that have an id, in clips of at least two annotated frames."""
    annotation = sample.annotation
    frames = _annotated_frames(annotation)
    if len(frames) < 2:
        return
    for place, segment in enumerate(annotation.segments):
        if segment.track_id >= 0 and not segment.is_crowd:
            yield from _Track(sample, place, frames).faults()
    yield from _changes_of_id(sample, frames)


def _annotated_frames(annotation: Annotation) -> list[int]:
    whole = annotation.size[0] * annotation.size[1]
    return [frame for frame, rle in enumerate(annotation.void) if region_area(rle) < whole]


class _Track:
    """One object through the annotated frames. boxes: (n, 4) xyxy where it is seen. frames: their numbers."""

    def __init__(self, sample: Sample, place: int, frames: list[int]) -> None:
        self._name, self._place = segment_name(sample, place), place
        self._size = sample.annotation.size
        masks = sample.annotation.segments[place].masks
        self._shown = [frame for frame in frames if masks[frame] is not None]
        self._rles: list[Any] = [masks[frame] for frame in self._shown]
        self._position = {frame: number for number, frame in enumerate(frames)}
        self._all = frames

    def faults(self) -> Iterator[Fault]:
        if len(self._shown) < 2:
            return
        boxes = np.array([rle_box(rle) for rle in self._rles])
        areas = np.array([region_area(rle) for rle in self._rles], np.float64)
        yield from self._gaps()
        next_to = [
            step
            for step, (first, second) in enumerate(pairwise(self._shown))
            if self._position[second] == self._position[first] + 1
        ]
        jumps = set(self._jumps(boxes, next_to))
        for step in sorted(jumps):
            text = f"{self._name} is nowhere near its place in frame {self._shown[step]}"
            yield Fault("track_jump", text, self._shown[step + 1], self._place)
        for step in next_to:
            if step not in jumps and self._area_jumps(areas, boxes, step):
                text = (
                    f"{self._name} has {areas[step + 1]:.0f} pixels, {areas[step]:.0f} in frame {self._shown[step]} "
                    "before"
                )
                yield Fault("track_area_jump", text, self._shown[step + 1], self._place)

    def _gaps(self) -> Iterator[Fault]:
        for first, second in pairwise(self._shown):
            missing = self._position[second] - self._position[first] - 1
            if missing:
                text = f"{self._name} is missing in {missing} frame{'s' * (missing > 1)} from frame {first} on"
                yield Fault("track_gap", text, self._all[self._position[first] + 1], self._place)

    def _jumps(self, boxes: NDArray[np.float64], next_to: list[int]) -> Iterator[int]:
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        ways = np.hypot(*(centers[1:] - centers[:-1]).T)
        for step in next_to:
            length = np.hypot(*(boxes[step : step + 2, 2:] - boxes[step : step + 2, :2]).T).max()
            others = [ways[other] for other in next_to if other != step]
            # Of two, the smaller: who jumps once jumps back.
            usual = float(np.quantile(others, 0.5, method="lower")) if others else 0.0
            if ways[step] <= FAR * length or (others and ways[step] <= UNUSUAL * usual):
                continue
            if not coco_mask.iou([self._rles[step]], [self._rles[step + 1]], [0])[0, 0]:
                yield step

    def _area_jumps(self, areas: NDArray[np.float64], boxes: NDArray[np.float64], step: int) -> bool:
        """Things that come in or go out at the border change their area by right."""
        small, large = sorted((areas[step], areas[step + 1]))
        if large < AREA_RATIO * small or large < SMALL_AREA:
            return False
        height, width = self._size
        pair = boxes[step : step + 2]
        return not ((pair[:, :2] <= 1).any() or (pair[:, 2] >= width - 1).any() or (pair[:, 3] >= height - 1).any())


def _changes_of_id(sample: Sample, frames: list[int]) -> Iterator[Fault]:
    """An object whose place a new one of its class has in the next frame, while it ends there or goes elsewhere."""
    segments = sample.annotation.segments
    things = [place for place, segment in enumerate(segments) if segment.track_id >= 0 and not segment.is_crowd]
    for before, after in pairwise(frames):
        present = [place for place in things if segments[place].masks[before] is not None]
        starting = [place for place in things if _starts(segments[place].masks, after)]
        if not present or not starting:
            continue
        old: list[Any] = [segments[place].masks[before] for place in present]
        new: list[Any] = [segments[place].masks[after] for place in starting]
        for (row, column), iou in np.ndenumerate(coco_mask.iou(old, new, [0] * len(new))):
            one, other = present[row], starting[column]
            if iou <= SAME_IOU or segments[one].category_id != segments[other].category_id:
                continue
            own: Any = segments[one].masks[after]
            if own is None or coco_mask.iou([old[row]], [own], [0])[0, 0] < SAME_IOU:
                text = f"{segment_name(sample, other)} starts where {segment_name(sample, one)} was before"
                yield Fault("track_changes_id", text, after, other)


def _starts(masks: tuple[RLE | None, ...], frame: int) -> bool:
    return masks[frame] is not None and all(rle is None for rle in masks[:frame])
