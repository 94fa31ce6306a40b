"""Results as lines of JSON: masks as run lengths, one result per line, so that a file grows while it is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.ops.masks import decode_rle, encode_mask, rle_area
from omg_transformers.structures import RLE, Segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor


def segments_to_dict(segments: Segments) -> dict[str, Any]:
    """JSON-able and exact: `size`, `num_frames`, `overlaps` (whether masks may), `segments`: `id`, `label`, `score`,
    `masks`: per frame the compressed counts of COCO's run-length encoding, null where the segment is absent.
    """
    rows = zip(segments.ids.tolist(), segments.labels.tolist(), segments.scores.tolist(), strict=True)
    return {
        "size": list(segments.size),
        "num_frames": segments.num_frames,
        "overlaps": segments.id_map is None,
        "segments": [
            {"id": identity, "label": label, "score": score, "masks": [_counts(rle) for rle in _masks(segments, index)]}
            for index, (identity, label, score) in enumerate(rows)
        ],
    }


def segments_from_dict(content: dict[str, Any]) -> Segments:
    """What `segments_to_dict` was given, without `info`. Raises ValueError for anything else."""
    try:
        height, width = content["size"]
        size, entries = (int(height), int(width)), content["segments"]
        rles: tuple[tuple[RLE | None, ...], ...] = tuple(
            tuple(None if counts is None else _rle(counts, size) for counts in entry["masks"]) for entry in entries
        )
        ids = torch.tensor([entry["id"] for entry in entries], dtype=torch.int64)
        labels = torch.tensor([entry["label"] for entry in entries], dtype=torch.int64)
        scores = torch.tensor([entry["score"] for entry in entries], dtype=torch.float32)
        if content["overlaps"]:
            return Segments(size, ids, labels, scores, rles=rles)
        return Segments(size, ids, labels, scores, id_map=_painted(ids, rles, (content["num_frames"], *size)))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"this is no result of segments_to_dict ({type(error).__name__}: {error})") from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a file. The last one is left out when its writer was interrupted; others must be valid."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{path}, line {number} is not valid JSON ({error}): remove the line") from error


def _masks(segments: Segments, index: int) -> tuple[RLE | None, ...]:
    if segments.rles is not None:
        return segments.rles[index]
    return tuple(encode_mask(mask) for mask in segments.mask(index))


def _counts(rle: RLE | None) -> str | None:
    return None if rle is None or rle_area(rle) == 0 else rle["counts"].decode("ascii")


def _rle(counts: str, size: tuple[int, int]) -> RLE:
    return {"size": list(size), "counts": counts.encode("ascii")}


def _painted(ids: Tensor, rles: tuple[tuple[RLE | None, ...], ...], shape: tuple[int, int, int]) -> Tensor:
    painted = torch.zeros(shape, dtype=torch.int32)
    for identity, masks in zip(ids.tolist(), rles, strict=True):
        for frame, rle in enumerate(masks):
            if rle is not None:
                painted[frame][decode_rle(rle)] = identity
    return painted
