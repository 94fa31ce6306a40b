"""What can be wrong with one sample, and what it adds to the histogram of classes."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pycocotools import mask as coco_mask

from omg_transformers.data.regions import region_area
from omg_transformers.ops.masks import rle_box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.data.doctor.report import ClassCounts
    from omg_transformers.structures import RLE, Annotation, Sample, Segment

# Fewer pixels are a slip of the hand rather than an object.
TINY_AREA = 3
# A thing on a larger share of the picture is more likely its background.
WHOLE_SHARE = 0.98
SAME_IOU = 0.95


class Fault(NamedTuple):
    """One fault of a sample. frame, segment: its place there, None when it is about all of them."""

    kind: str
    message: str
    frame: int | None = None
    segment: int | None = None


def check_annotation(sample: Sample) -> Iterator[Fault]:
    """The faults of what is annotated, frame by frame; how things move is another matter (`tracks`)."""
    annotation = sample.annotation
    if len(sample.frames) != annotation.num_frames:
        yield Fault("size_differs", f"{len(sample.frames)} frames, but {annotation.num_frames} are annotated")
    yield from _check_emptiness(annotation)
    yield from _check_ids(annotation)
    for place, segment in enumerate(annotation.segments):
        yield from _check_segment(annotation, segment, place, _name(sample, segment))
    for frame in range(annotation.num_frames):
        yield from _check_twins(sample, frame)


def count_classes(sample: Sample, counts: ClassCounts) -> None:
    """Add the pixels, segments and classes of one sample; of frames that somebody annotated, at least in part."""
    annotation = sample.annotation
    whole = annotation.size[0] * annotation.size[1]
    voids = [area for rle in annotation.void if (area := region_area(rle)) < whole]
    counts.total += whole * len(voids)
    counts.void += sum(voids)
    present = set()
    for segment in annotation.segments:
        if not 0 <= segment.category_id < len(counts.pixels):
            counts.without += 1
            continue
        counts.pixels[segment.category_id] += sum(region_area(rle) for rle in segment.masks)
        counts.segments[segment.category_id] += 1
        present.add(segment.category_id)
    for label in present:
        counts.samples[label] += 1


def _check_emptiness(annotation: Annotation) -> Iterator[Fault]:
    whole = annotation.size[0] * annotation.size[1]
    is_void = [region_area(rle) >= whole for rle in annotation.void]
    if all(is_void):
        yield Fault("all_void", "void covers every pixel")
    elif not annotation.segments:
        yield Fault("empty_picture", "no object and no region is annotated")
    elif any(is_void):
        yield Fault("unannotated_frames", f"{sum(is_void)} of {len(is_void)} frames are void as a whole")
    if not annotation.is_exhaustive:
        count = len(annotation.certain_classes or ())
        yield Fault("not_exhaustive", f"{count} of {annotation.num_classes} classes are annotated in full")


def _check_ids(annotation: Annotation) -> Iterator[Fault]:
    """Void and stuff have no number of their own; things that have one must not share it."""
    numbers = Counter(segment.track_id for segment in annotation.segments if segment.track_id >= 0)
    for number, count in numbers.items():
        if count > 1:
            yield Fault("duplicated_id", f"{count} objects have the id {number}")
    for place, segment in enumerate(annotation.segments):
        if segment.category_id >= annotation.num_classes:
            text = f"a segment has the class number {segment.category_id} of {annotation.num_classes}"
            yield Fault("id_without_class", text, segment=place)


def _check_segment(annotation: Annotation, segment: Segment, place: int, name: str) -> Iterator[Fault]:
    areas = [region_area(rle) for rle in segment.masks]
    if not any(areas):
        yield Fault("empty_segment", f"{name} has no pixel", segment=place)
        return
    whole = annotation.size[0] * annotation.size[1]
    is_thing = segment.category_id < 0 or _flag(annotation, segment.category_id)
    for frame, area in enumerate(areas):
        if 0 < area <= TINY_AREA and not segment.is_crowd:
            yield Fault("tiny_segment", f"{name} has {area} pixel{'s' * (area > 1)}", frame, place)
            break
    for frame, area in enumerate(areas):
        if area >= WHOLE_SHARE * whole and is_thing and not segment.is_crowd:
            yield Fault("fills_picture", f"{name} covers {area / whole:.1%} of the picture", frame, place)
            break


def _check_twins(sample: Sample, frame: int) -> Iterator[Fault]:
    """Pairs of things with one mask; of a clip only where both appear first, so that a pair is told once."""
    segments = sample.annotation.segments
    here = [
        (place, rle)
        for place, segment in enumerate(segments)
        if (rle := segment.masks[frame]) is not None and not segment.is_crowd
    ]
    if len(here) < 2:
        return
    boxes = np.array([rle_box(rle) for _, rle in here])
    close = np.abs(boxes[:, None] - boxes[None]).max(-1) <= 0.05 * (boxes[:, None, 2:] - boxes[:, None, :2]).max(-1) + 1
    for first, second in itertools.combinations(range(len(here)), 2):
        if not close[first, second] or _iou(here[first][1], here[second][1]) < SAME_IOU:
            continue
        one, other = segments[here[first][0]], segments[here[second][0]]
        if _appear_together_before(one, other, frame):
            continue
        text = f"{_name(sample, one)} and {_name(sample, other)} have the same mask"
        yield Fault("duplicated_segment", text, frame, here[second][0])


def _appear_together_before(one: Segment, other: Segment, frame: int) -> bool:
    pairs = zip(one.masks[:frame], other.masks[:frame], strict=True)
    return any(first is not None and second is not None for first, second in pairs)


def _iou(first: RLE, second: RLE) -> float:
    return float(coco_mask.iou([first], [second], [0])[0, 0])


def _flag(annotation: Annotation, label: int) -> bool:
    return label < annotation.num_classes and annotation.is_thing[label]


def _name(sample: Sample, segment: Segment) -> str:
    label, number = segment.category_id, segment.track_id
    name = sample.label_space.names[label] if 0 <= label < len(sample.label_space) else "an object"
    return f"{name} {number}" if number >= 0 else name


def segment_name(sample: Sample, place: int) -> str:
    """How messages call segment number `place`: its class and its id."""
    return _name(sample, sample.annotation.segments[place])
