"""Judging and comparing the results of a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.structures import Segments


def require(condition: bool, message: str) -> None:
    """Fail a check. Not an `assert` statement: `python -O` would drop it."""
    if not condition:
        raise AssertionError(message)


def require_valid(result: Segments, *, size: tuple[int, int], num_frames: int, num_classes: int) -> None:
    """Fail unless the result keeps what `Segments` promises."""
    from omg_transformers.structures import Segments

    require(isinstance(result, Segments), f"postprocess gave a {type(result).__name__}, expected Segments")
    require(tuple(result.size) == size, f"size is {result.size}, asked for {size}")
    count = len(result.ids)
    for name, dtype in (("ids", torch.int64), ("labels", torch.int64), ("scores", torch.float32)):
        _require_tensor(name, getattr(result, name), dtype, (count,))
    require(bool((result.ids > 0).all()), f"ids must be > 0, got {result.ids.tolist()}")
    require(len(set(result.ids.tolist())) == count, f"ids must be unique, got {result.ids.tolist()}")
    in_range = (result.labels >= -1) & (result.labels < num_classes)
    require(bool(in_range.all()), f"labels must be in [-1, {num_classes}), got {result.labels.tolist()}")
    in_range = (result.scores >= 0) & (result.scores <= 1)
    require(bool(in_range.all()), f"scores must be in [0, 1], got {result.scores.tolist()}")
    require((result.id_map is None) != (result.rles is None), "exactly one of `id_map` and `rles` holds the masks")
    if result.id_map is not None:
        _require_tensor("id_map", result.id_map, torch.int32, (num_frames, *size))
        strangers = set(result.id_map.flatten().tolist()) - set(result.ids.tolist()) - {0}
        require(not strangers, f"id_map holds {sorted(strangers)}, which are not in ids")
    if result.rles is not None:
        require(len(result.rles) == count, f"rles has {len(result.rles)} entries for {count} ids")
        for rles in result.rles:
            require(len(rles) == num_frames, f"a segment has {len(rles)} masks for {num_frames} frames")
            wrong = [rle["size"] for rle in rles if rle is not None and tuple(rle["size"]) != size]
            require(not wrong, f"an RLE has size {wrong[:1]}, asked for {size}")


def _require_tensor(name: str, value: object, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    require(isinstance(value, Tensor), f"{name} is a {type(value).__name__}, expected a tensor")
    if isinstance(value, Tensor):
        require(value.dtype == dtype, f"{name} has dtype {value.dtype}, expected {dtype}")
        require(tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}, expected {shape}")


def described(result: Segments, *, frames: Sequence[int] | None = None) -> list[tuple[int, bytes, float]]:
    """The segments as a sorted list of (label, mask, score): equal for equal answers, whatever ids and order are."""
    rows = []
    for index in range(len(result.ids)):
        mask = result.mask(index)
        if frames is not None:
            mask = mask[list(frames)]
        rows.append((int(result.labels[index]), mask.cpu().numpy().tobytes(), float(result.scores[index])))
    return sorted(rows)


def require_same(first: Segments, second: Segments, why: str, *, score_tolerance: float = 1e-4) -> None:
    """Fail unless both results hold the same segments, in any order."""
    require_same_rows(described(first), described(second), why, score_tolerance=score_tolerance)


def require_same_rows(
    first: list[tuple[int, bytes, float]],
    second: list[tuple[int, bytes, float]],
    why: str,
    *,
    score_tolerance: float = 1e-4,
) -> None:
    """The same for what `described` gave."""
    require(len(first) == len(second), f"{why}: {len(first)} segments became {len(second)}")
    require([row[0] for row in first] == [row[0] for row in second], f"{why}: labels changed")
    require([row[1] for row in first] == [row[1] for row in second], f"{why}: masks changed")
    gaps = [abs(a[2] - b[2]) for a, b in zip(first, second, strict=True)]
    require(max(gaps, default=0.0) <= score_tolerance, f"{why}: a score moved by {max(gaps, default=0.0):.2g}")
