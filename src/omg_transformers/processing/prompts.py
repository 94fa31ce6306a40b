"""Points, boxes and masks in pixels of the user's pictures, checked and moved to the padded input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omg_transformers.structures import MASK_STRIDE, NO_PROMPT

Size = tuple[int, int]

PROMPTS = ("input_points", "input_labels", "input_boxes", "input_masks")

_POINTS = "input_points[picture][object][point] = (x, y)"
_BOXES = "input_boxes[picture][box] = (x1, y1, x2, y2)"
_LABELS = "input_labels[picture][object][point] = 1 (inside), 0 (outside) or -10 (no point)"
_MASKS = "input_masks[picture][object] = a mask (height, width) of the picture's size, or None"


def prepare_prompts(
    given: Mapping[str, Any], *, sizes: Sequence[Size], resized_sizes: Sequence[Size], input_size: Size
) -> dict[str, Tensor]:
    """The model's arguments for input_points, input_labels, input_boxes and input_masks; None: left out.

    sizes, resized_sizes: (height, width) of each picture before and after resizing. input_size: padded, of the batch.
    Raises ValueError or TypeError that names the argument, the value and what was expected.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if "input_labels" in given and "input_points" not in given:
        raise ValueError("input_labels is given without input_points: labels say which points are inside")
    prepared: dict[str, Tensor] = {}
    if "input_points" in given:
        points, is_padding = _filled_points(given["input_points"])
        labels = None
        if "input_labels" in given or is_padding.any():
            labels = _labels_of(given.get("input_labels"), points, is_padding)
            prepared["input_labels"] = labels
        points = prepare_points(points, sizes=sizes, resized_sizes=resized_sizes, labels=labels)
        prepared = {"input_points": points, **prepared}
    if "input_boxes" in given:
        prepared["input_boxes"] = prepare_boxes(given["input_boxes"], sizes=sizes, resized_sizes=resized_sizes)
    if "input_masks" in given:
        masks = given["input_masks"]
        prepared["input_masks"] = prepare_masks(masks, sizes=sizes, resized_sizes=resized_sizes, input_size=input_size)
    _check_objects(prepared)
    return prepared


def prepare_points(
    points: Any, *, sizes: Sequence[Size], resized_sizes: Sequence[Size], labels: Tensor | None = None
) -> Tensor:
    """Points [picture][object][point][x, y] in pixels of each picture -> (B, N, P, 2) float32 in pixels of the input.

    labels: (B, N, P); where they are -10 there is no point, and -10 comes out.
    sizes, resized_sizes: (height, width) of each picture before and after resizing. ValueError names a point outside.
    """
    values = _as_tensor(points, "input_points", _POINTS, num_axes=4, width=2)
    _check_count("input_points", values, len(sizes))
    is_point = torch.ones(values.shape[:-1], dtype=torch.bool) if labels is None else labels != NO_PROMPT
    for index, size in enumerate(sizes):
        _check_inside(values[index][is_point[index]], size, f"input_points[{index}]")
    scaled = values * _scales(sizes, resized_sizes)[:, None, None, :]
    return torch.where(is_point[..., None], scaled, float(NO_PROMPT))


def prepare_boxes(boxes: Any, *, sizes: Sequence[Size], resized_sizes: Sequence[Size]) -> Tensor:
    """Boxes [picture][box][x1, y1, x2, y2] in pixels of each picture -> (B, N, 4) float32 in pixels of the input.

    Four times -10 stands for an object without a box, and stays.
    """
    values = _as_tensor(boxes, "input_boxes", _BOXES, num_axes=3, width=4)
    _check_count("input_boxes", values, len(sizes))
    is_box = (values != NO_PROMPT).any(-1)
    for index, size in enumerate(sizes):
        _check_inside(values[index][is_box[index]].reshape(-1, 2), size, f"input_boxes[{index}]")
        flat = (values[index, :, 2:] <= values[index, :, :2]).any(-1) & is_box[index]
        if flat.any():
            place = int(flat.nonzero()[0])
            raise ValueError(
                f"input_boxes[{index}][{place}] is {_numbers(values[index, place])}: expected (x1, y1, x2, y2) with "
                "x2 > x1 and y2 > y1. For (x, y, width, height) boxes, pass (x, y, x + width, y + height)."
            )
    scaled = values * _scales(sizes, resized_sizes).repeat(1, 2)[:, None, :]
    return torch.where(is_box[..., None], scaled, float(NO_PROMPT))


def prepare_masks(masks: Any, *, sizes: Sequence[Size], resized_sizes: Sequence[Size], input_size: Size) -> Tensor:
    """Masks [picture][object] (H, W) of each picture's size, or None -> (B, N, H / 4, W / 4) float32 in [0, 1].

    Inside is True or above 0.5 of what is in [0, 1]; 0 and 255 will do too. The result is the share of each cell of the
    padded input that is inside, zeros where there is no mask.
    """
    if len(masks) != len(sizes):
        raise ValueError(
            f"input_masks is for {len(masks)} pictures but {len(sizes)} were given: its outermost list has one entry "
            "per picture"
        )
    counts = [len(of_picture) if _has_length(of_picture) else 0 for of_picture in masks]
    if len(set(counts)) > 1 or counts[0] == 0:
        raise ValueError(
            f"input_masks holds {counts} masks per picture: expected {_MASKS}, equally many and at least one"
        )
    prepared = torch.zeros((len(masks), counts[0], input_size[0] // MASK_STRIDE, input_size[1] // MASK_STRIDE))
    for picture, (of_picture, size, resized) in enumerate(zip(masks, sizes, resized_sizes, strict=True)):
        for place, mask in enumerate(of_picture):
            if mask is None:
                continue
            inside = _inside(mask, size, f"input_masks[{picture}][{place}]")[None, None]
            padded = torch.zeros((1, 1, *input_size))
            padded[..., : resized[0], : resized[1]] = F.interpolate(inside, size=resized, mode="area")
            prepared[picture, place] = F.avg_pool2d(padded, MASK_STRIDE)[0, 0]
    return prepared


def _inside(mask: Any, size: Size, name: str) -> Tensor:
    """(H, W) float32 of 0 and 1."""
    values = np.asarray(mask.detach().cpu() if isinstance(mask, Tensor) else mask)
    if values.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds {values.dtype} values: expected bool, or numbers of which 0 is outside")
    if values.shape != tuple(size):
        raise ValueError(
            f"{name} has shape {values.shape} but the picture is {size[0]} high and {size[1]} wide: give a mask of the "
            "picture's own size, (height, width), before any resizing"
        )
    if values.dtype.kind == "f" and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name} holds values outside 0 to 1: give logits as logits > 0, (0, 255) masks as integers")
    inside = values > (0.5 if values.dtype.kind == "f" else 0)
    if not inside.any():
        raise ValueError(f"{name} is empty, nothing is inside: leave it out, or give None for an object without a mask")
    return torch.from_numpy(inside.astype(np.float32))


def _filled_points(points: Any) -> tuple[Any, np.ndarray[Any, Any]]:
    """Points with objects that have fewer filled up with -10, and which places were filled (pictures, objects, P)."""
    if not isinstance(points, (list, tuple)) or not all(isinstance(of_picture, (list, tuple)) for of_picture in points):
        return points, np.zeros(1, dtype=bool)
    counts = [[len(of_object) if _has_length(of_object) else -1 for of_object in of_picture] for of_picture in points]
    flat = [count for of_picture in counts for count in of_picture]
    same_objects = len({len(of_picture) for of_picture in counts}) == 1
    if not flat or min(flat) < 0 or len(set(flat)) == 1 or not same_objects:
        return points, np.zeros(1, dtype=bool)
    most = max(flat)
    filled = [
        [[*of_object, *[[NO_PROMPT, NO_PROMPT]] * (most - len(of_object))] for of_object in of_picture]
        for of_picture in points
    ]
    is_padding = np.array([[[place >= count for place in range(most)] for count in row] for row in counts])
    return filled, is_padding


def _labels_of(labels: Any, points: Any, is_padding: np.ndarray[Any, Any]) -> Tensor:
    """(B, N, P) int64: as given and filled up; all inside where none were given."""
    values = _as_tensor(points, "input_points", _POINTS, num_axes=4, width=2)
    if labels is None:
        return torch.from_numpy(np.where(is_padding, NO_PROMPT, 1))
    if is_padding.any():
        most = values.shape[2]
        labels = [[[*row, *[NO_PROMPT] * (most - len(row))] for row in of_picture] for of_picture in labels]
    prepared = prepare_point_labels(labels, values)
    if (prepared.numpy() != NO_PROMPT)[np.broadcast_to(is_padding, prepared.shape)].any():
        raise ValueError("input_labels and input_points have different numbers of points: give each point a label")
    return prepared


def prepare_point_labels(labels: Any, points: Tensor) -> Tensor:
    """Labels [picture][object][point], 1 inside the object, 0 outside, -10 no point -> (B, N, P) int64."""
    values = _as_tensor(labels, "input_labels", _LABELS, num_axes=3, width=None)
    if values.shape != points.shape[:-1]:
        raise ValueError(
            f"input_labels has shape {tuple(values.shape)} (pictures, objects, points) but input_points has "
            f"{tuple(points.shape[:-1])}: give one label per point"
        )
    wrong = values[(values != 0) & (values != 1) & (values != NO_PROMPT)]
    if len(wrong):
        raise ValueError(
            f"input_labels holds {wrong[0]:g}: expected 1 (inside the object), 0 (outside) or {NO_PROMPT} (no point)"
        )
    return values.long()


def _check_objects(prepared: Mapping[str, Tensor]) -> None:
    """Every kind of prompt is about the same objects, and about each object something is said."""
    counts = {name: value.shape[1] for name, value in prepared.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} in {name}" for name, count in counts.items() if name != "input_labels")
        raise ValueError(
            f"the prompts are about different numbers of objects ({told}): give each object a place in each of them, "
            f"filled with {NO_PROMPT} where it has no point or box, with None where it has no mask"
        )
    if not prepared:
        return
    shape = next(iter(prepared.values())).shape[:2]
    is_said = torch.zeros(shape, dtype=torch.bool)
    if "input_points" in prepared:
        labels = prepared.get("input_labels")
        is_said |= torch.tensor(True) if labels is None else (labels == 1).any(-1)
    if "input_boxes" in prepared:
        is_said |= (prepared["input_boxes"] != NO_PROMPT).any(-1)
    if "input_masks" in prepared:
        is_said |= prepared["input_masks"].amax((2, 3)) > 0
    if not is_said.all():
        picture, place = (~is_said).nonzero()[0].tolist()
        raise ValueError(
            f"object {place} of picture {picture} has no point inside (label 1), no box and no mask: points outside "
            "(label 0) alone do not say what is meant. Give it one of them"
        )


def _has_length(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, (np.ndarray, Tensor)) and value.ndim > 0)


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
