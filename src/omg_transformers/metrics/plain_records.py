"""Results and truths as plain dictionaries of numbers and run-length strings: they travel through JSON and Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from omg_transformers.metrics.maps import decode
from omg_transformers.metrics.run_lengths import counts_as_bytes, faults_of_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from omg_transformers.plugins import Metric
    from omg_transformers.structures import RLE, Annotation, Segments

    AnyMetric = TypeVar("AnyMetric", bound=Metric)
    Record = Mapping[str, Any]

# In a list of masks, one per frame: the segment is absent there.
ABSENT = ""


def record_of_segments(prediction: Segments) -> dict[str, Any]:
    """{"size": [h, w], "segments": [{"category_id", "score", "masks": [counts per frame, "" = absent]}]}."""
    from omg_transformers.ops.masks import encode_masks

    tracks = prediction.rles
    if tracks is None:
        tracks = tuple(encode_masks(prediction.mask(index)) for index in range(len(prediction)))
    rows = zip(prediction.labels.tolist(), prediction.scores.tolist(), tracks, strict=True)
    segments = [{"category_id": label, "score": score, "masks": _texts(rles)} for label, score, rles in rows]
    return {"size": list(prediction.size), "segments": segments}


def record_of_annotation(annotation: Annotation) -> dict[str, Any]:
    """As `record_of_segments`, with "is_crowd" for the score, and "void": [counts per frame]."""
    segments = [
        {"category_id": segment.category_id, "is_crowd": segment.is_crowd, "masks": _texts(segment.masks)}
        for segment in annotation.segments
    ]
    return {"size": list(annotation.size), "segments": segments, "void": _texts(annotation.void)}


def score_records(
    metric: AnyMetric,
    predictions: Sequence[Record],
    references: Sequence[Record],
    *,
    is_thing: Sequence[bool] = (),
    may_overlap: bool,
) -> AnyMetric:
    """Count records as `record_of_segments` and `record_of_annotation` give them; returns the metric.

    is_thing: one flag per class. may_overlap: False where the metric reads one segment per pixel (panoptic, semantic).
    ValueError naming the sample's number.
    """
    for number, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        try:
            annotation = annotation_of_record(reference, is_thing)
            metric.update(segments_of_record(prediction, annotation.num_frames, may_overlap=may_overlap), annotation)
        except ValueError as error:
            raise ValueError(f"sample {number}: {error}") from error
    return metric


def segments_of_record(record: Record, num_frames: int, *, may_overlap: bool) -> Segments:
    """What `record_of_segments` has written. may_overlap: False for an id map; overlaps are then an error."""
    import torch

    from omg_transformers.structures import Segments

    size, rows = _size(record), record["segments"]
    tracks = tuple(_rles(row["masks"], size, num_frames, f"prediction, segment {i}") for i, row in enumerate(rows))
    ids = torch.arange(1, len(rows) + 1)
    labels = torch.tensor([row["category_id"] for row in rows], dtype=torch.int64)
    # Double precision, as in a results file: scores that differ must not become equal.
    scores = torch.tensor([row["score"] for row in rows], dtype=torch.float64)
    if may_overlap:
        return Segments(size, ids, labels, scores, rles=tracks)
    return Segments(size, ids, labels, scores, torch.from_numpy(_painted(tracks, (num_frames, *size))))


def annotation_of_record(record: Record, is_thing: Sequence[bool]) -> Annotation:
    """What `record_of_annotation` has written; "void" may be empty."""
    from omg_transformers.structures import Annotation, Segment

    size, rows = _size(record), record["segments"]
    void = record["void"] or [ABSENT] * (len(rows[0]["masks"]) if rows else 1)
    segments = tuple(
        Segment(
            int(row["category_id"]),
            _rles(row["masks"], size, len(void), f"reference, segment {index}"),
            is_crowd=bool(row["is_crowd"]),
        )
        for index, row in enumerate(rows)
    )
    strange = sorted({segment.category_id for segment in segments if segment.category_id >= len(is_thing)})
    if is_thing and strange:
        raise ValueError(f"the reference has the classes {strange[:5]}: expected 0 to {len(is_thing) - 1}, -1 = none")
    return Annotation(size, tuple(map(bool, is_thing)), segments, _rles(void, size, len(void), "reference, void"))


def _texts(rles: Sequence[RLE | None]) -> list[str]:
    counts = [ABSENT if rle is None else rle["counts"] for rle in rles]
    return [text if isinstance(text, str) else text.decode("ascii") for text in counts]


def _size(record: Record) -> tuple[int, int]:
    size = record["size"]
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size is {list(size)}: expected [height, width], both at least 1")
    return int(size[0]), int(size[1])


def _rles(texts: Sequence[str], size: tuple[int, int], num_frames: int, place: str) -> tuple[RLE | None, ...]:
    if len(texts) != num_frames:
        raise ValueError(
            f"{place}: {len(texts)} masks for {num_frames} frames: give one per frame, {ABSENT!r} = absent"
        )
    rles: list[RLE | None] = []
    for text in texts:
        if text == ABSENT:
            rles.append(None)
            continue
        counts = counts_as_bytes(text) or b""
        faults = faults_of_counts([counts], [size[0] * size[1]])
        if faults:
            raise ValueError(f"{place}: {faults[0]}; masks are strings, rle['counts'].decode() of a COCO RLE of {size}")
        rles.append({"size": list(size), "counts": counts})
    return tuple(rles)


def _painted(tracks: Sequence[Sequence[RLE | None]], shape: tuple[int, int, int]) -> NDArray[np.int32]:
    id_map = np.zeros(shape, dtype=np.int32)
    for identity, rles in enumerate(tracks, 1):
        for frame, rle in enumerate(rles):
            if rle is None:
                continue
            mask = decode(rle)
            if id_map[frame][mask].any():
                other = int(id_map[frame][mask].max()) - 1
                raise ValueError(
                    f"prediction, segments {other} and {identity - 1}: they overlap in frame {frame}, and this metric "
                    "needs one segment per pixel"
                )
            id_map[frame][mask] = identity
    return id_map
