"""Points and boxes in pixels of the user's pictures, checked and moved to pixels of the padded input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Size = tuple[int, int]

_POINTS = "input_points[picture][object][point] = (x, y)"
_BOXES = "input_boxes[picture][box] = (x1, y1, x2, y2)"
_LABELS = "input_labels[picture][object][point] = 1 (inside) or 0 (outside)"


def prepare_points(points: Any, *, sizes: Sequence[Size], resized_sizes: Sequence[Size]) -> Tensor:
    """Points [picture][object][point][x, y] in pixels of each picture -> (B, N, P, 2) float32 in pixels of the input.

    sizes, resized_sizes: (height, width) of each picture before and after resizing. ValueError names a point outside.
    """
    values = _as_tensor(points, "input_points", _POINTS, num_axes=4, width=2)
    _check_count("input_points", values, len(sizes))
    for index, size in enumerate(sizes):
        _check_inside(values[index].flatten(0, 1), size, f"input_points[{index}]")
    return values * _scales(sizes, resized_sizes)[:, None, None, :]


def prepare_boxes(boxes: Any, *, sizes: Sequence[Size], resized_sizes: Sequence[Size]) -> Tensor:
    """Boxes [picture][box][x1, y1, x2, y2] in pixels of each picture -> (B, N, 4) float32 in pixels of the input."""
    values = _as_tensor(boxes, "input_boxes", _BOXES, num_axes=3, width=4)
    _check_count("input_boxes", values, len(sizes))
    for index, size in enumerate(sizes):
        _check_inside(values[index].reshape(-1, 2), size, f"input_boxes[{index}]")
        flat = (values[index, :, 2:] <= values[index, :, :2]).any(-1)
        if flat.any():
            place = int(flat.nonzero()[0])
            raise ValueError(
                f"input_boxes[{index}][{place}] is {_numbers(values[index, place])}: expected (x1, y1, x2, y2) with "
                "x2 > x1 and y2 > y1. For (x, y, width, height) boxes, pass (x, y, x + width, y + height)."
            )
    return values * _scales(sizes, resized_sizes).repeat(1, 2)[:, None, :]


def prepare_point_labels(labels: Any, points: Tensor) -> Tensor:
    """Labels [picture][object][point], 1 = inside the object, 0 = outside -> (B, N, P) int64, one per point."""
    values = _as_tensor(labels, "input_labels", _LABELS, num_axes=3, width=None)
    if values.shape != points.shape[:-1]:
        raise ValueError(
            f"input_labels has shape {tuple(values.shape)} (pictures, objects, points) but input_points has "
            f"{tuple(points.shape[:-1])}: give one label per point"
        )
    wrong = values[(values != 0) & (values != 1)]
    if len(wrong):
        raise ValueError(f"input_labels holds {wrong[0]:g}: expected 1 (inside the object) or 0 (outside)")
    return values.long()


def _as_tensor(nested: Any, name: str, shape: str, *, num_axes: int, width: int | None) -> Tensor:
    array = nested.detach().cpu().numpy() if isinstance(nested, Tensor) else _to_array(nested, name, shape)
    axes = num_axes if width is None else num_axes - 1
    depth = "list of lists of lists"[: 4 + 9 * (axes - 1)]
    if array.ndim != num_axes:
        more = "more" if array.ndim < num_axes else "fewer"
        hint = " For one picture and one object: [[[[x, y]]]]." if num_axes == 4 else ""
        raise ValueError(
            f"{name} is nested {array.ndim} deep, {more} levels are needed: expected {shape}, a {depth}.{hint}"
        )
    if width is not None and array.shape[-1] != width:
        raise ValueError(f"{name} holds groups of {array.shape[-1]} numbers: expected {shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty, shape {array.shape}: leave it out, or give at least one per picture")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: expected {shape} in pixels")
    return torch.from_numpy(array.astype(np.float32))


def _to_array(nested: Any, name: str, shape: str) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(nested, dtype=np.float64)
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise ValueError(f"{name} holds something that is no number ({error}): expected {shape}") from error
        counts = [len(item) for item in nested if isinstance(item, (list, tuple))]
        raise ValueError(
            f"{name} is ragged: expected {shape} with the same counts everywhere (per picture: {counts}). "
            "Call once per picture when pictures have different numbers of objects."
        ) from error
    except TypeError as error:
        raise TypeError(f"{name} holds something that is no number ({error}): expected {shape}") from error


def _check_count(name: str, values: Tensor, num_pictures: int) -> None:
    if len(values) != num_pictures:
        raise ValueError(
            f"{name} is for {len(values)} pictures but {num_pictures} were given: its outermost list has one entry "
            "per picture"
        )


def _check_inside(points: Tensor, size: Size, name: str) -> None:
    height, width = size
    outside = (points < 0).any(-1) | (points[:, 0] > width) | (points[:, 1] > height)
    if outside.any():
        raise ValueError(
            f"{name} holds ({_numbers(points[int(outside.nonzero()[0])])}), outside the picture, which is {width} wide "
            f"and {height} high. Give (x, y) in pixels of the original picture, before any resizing."
        )


def _numbers(values: Tensor) -> str:
    return ", ".join(f"{float(value):g}" for value in values)


def _scales(sizes: Sequence[Size], resized_sizes: Sequence[Size]) -> Tensor:
    """(B, 2): factors for x and y."""
    pairs = zip(sizes, resized_sizes, strict=True)
    return torch.tensor([[after[1] / before[1], after[0] / before[0]] for before, after in pairs], dtype=torch.float32)
