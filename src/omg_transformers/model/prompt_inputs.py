"""Prompts as tensors: checked, and split into the one point or box that a query holds and what is said beyond it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from omg_transformers.ops.masks import boxes_of_masks
from omg_transformers.structures import MASK_STRIDE, NO_PROMPT, PromptHints

if TYPE_CHECKING:
    from collections.abc import Mapping

INSIDE, OUTSIDE = 1, 0
# Half sides, as shares of the picture's longer side, that a click may mean; and sizes relative to a given box.
POINT_EXTENTS, BOX_FACTORS = (0.1, 0.25), (0.85, 1.15)
NUM_CANDIDATES = 1 + len(POINT_EXTENTS)


@dataclass(frozen=True, slots=True)
class Anchors:
    """What each query holds: boxes (B, N, 4) xyxy in input pixels, and their rows of the prompt-type embedding.

    is_point: (B, N) bool, which of the boxes stand for a point.
    """

    boxes: Tensor
    types: Tensor
    is_point: Tensor
    hints: PromptHints | None = None


def read_prompts(
    inputs: Mapping[str, Any],
    batch_size: int,
    content_sizes: Tensor,
    point_row: int,
    point_radius: float,
    *,
    hints_always: bool = False,
) -> Anchors:
    """inputs: as `PromptQueries.forward` takes them. ValueError names what is wrong or missing.

    hints_always: also for objects about which just one thing was said.
    """
    boxes, points = inputs.get("input_boxes"), inputs.get("input_points")
    labels, masks = inputs.get("input_labels"), inputs.get("input_masks")
    if boxes is None and points is None and masks is None:
        raise ValueError("there is no prompt: give input_points, input_boxes or input_masks")
    if labels is not None and points is None:
        raise ValueError("input_labels is given without input_points: labels say which points are inside")
    _check_shapes(boxes, points, labels, masks, batch_size)
    if hints_always:
        return _several(boxes, points, labels, masks, content_sizes, point_row, point_radius, least_said=1)
    if points is not None and points.shape[2] == 1 and boxes is None and masks is None and _all_inside(labels):
        corner = points[:, :, 0]
        around = torch.cat([corner - point_radius, corner + point_radius], dim=-1)
        types = torch.full(around.shape[:2], point_row, device=around.device)
        return Anchors(around, types, torch.ones_like(types, dtype=torch.bool))
    if boxes is not None and points is None and masks is None and not _has_gaps(boxes):
        types = inputs.get("box_types", torch.zeros(boxes.shape[:2], dtype=torch.int64, device=boxes.device))
        return Anchors(boxes, types, torch.zeros_like(types, dtype=torch.bool))
    return _several(boxes, points, labels, masks, content_sizes, point_row, point_radius)


def other_extents(asked: Anchors, content_sizes: Tensor) -> Anchors:
    """NUM_CANDIDATES queries in a row per object: the one asked, and boxes that suppose another extent.

    Around a point, boxes of a part's and of a large object's size; a box a little smaller and a little larger.
    """
    longest = content_sizes.amax(-1)[:, None, None]
    centre = (asked.boxes[..., :2] + asked.boxes[..., 2:]).float() / 2
    half = (asked.boxes[..., 2:] - asked.boxes[..., :2]).float() / 2
    limits, boxes = content_sizes.flip(-1)[:, None, None], [asked.boxes.float()]
    for share, factor in zip(POINT_EXTENTS, BOX_FACTORS, strict=True):
        extent = torch.where(asked.is_point[..., None], share * longest, factor * half)
        corners = torch.stack([centre - extent, centre + extent], dim=2)
        boxes.append(corners.clamp(min=0).minimum(limits).flatten(2))
    of_boxes = torch.where(asked.is_point, 0, asked.types)
    types = torch.stack([asked.types, *[of_boxes] * (NUM_CANDIDATES - 1)], dim=2).flatten(1, 2)
    return Anchors(
        torch.stack(boxes, dim=2).flatten(1, 2),
        types,
        asked.is_point.repeat_interleave(NUM_CANDIDATES, dim=1),
        None if asked.hints is None else _repeat(asked.hints, NUM_CANDIDATES),
    )


def _repeat(hints: PromptHints, times: int) -> PromptHints:
    values: dict[str, Any] = {item.name: getattr(hints, item.name) for item in fields(hints)}
    repeated = {name: value.repeat_interleave(times, dim=1) for name, value in values.items() if value is not None}
    return replace(hints, **repeated)


def _several(
    boxes: Tensor | None,
    points: Tensor | None,
    labels: Tensor | None,
    masks: Tensor | None,
    content_sizes: Tensor,
    point_row: int,
    point_radius: float,
    least_said: int = 2,
) -> Anchors:
    """Objects with several prompts, or with prompts of different kinds; hints about those with `least_said` of them.

    The query holds the box, else the box of the mask, else the first point inside.
    """
    given = next(value for value in (boxes, points, masks) if value is not None)
    (batch, count), device = given.shape[:2], given.device
    if boxes is None:
        boxes = torch.full((batch, count, 4), float(NO_PROMPT), device=device)
    if points is None:
        points, labels = torch.full((batch, count, 1, 2), float(NO_PROMPT), device=device), None
        labels = torch.full((batch, count, 1), NO_PROMPT, device=device)
    elif labels is None:
        labels = torch.full(points.shape[:-1], INSIDE, device=device)
    has_box, is_inside = ~(boxes == NO_PROMPT).all(-1), labels == INSIDE
    has_mask = torch.zeros((batch, count), dtype=torch.bool, device=device) if masks is None else masks.amax((2, 3)) > 0
    _check_said(has_box | is_inside.any(-1) | has_mask, labels)

    first = is_inside.to(torch.uint8).argmax(-1)[..., None, None].expand(-1, -1, 1, 2)
    corner = points.float().gather(2, first)[:, :, 0]
    anchors = torch.cat([corner - point_radius, corner + point_radius], dim=-1)
    if masks is not None:
        of_masks = boxes_of_masks(masks >= masks.amax((2, 3), keepdim=True).clamp(max=0.5)) * MASK_STRIDE
        anchors = torch.where(has_mask[..., None], of_masks, anchors)
    anchors = torch.where(has_box[..., None], boxes.float(), anchors)
    is_point = ~has_box & ~has_mask
    types = torch.where(is_point, point_row, 0)

    said = has_box.int() + (labels != NO_PROMPT).sum(-1) + 2 * has_mask
    is_given = said >= least_said
    if not torch.compiler.is_compiling() and not bool(is_given.any()):
        return Anchors(anchors, types, is_point)
    extent = content_sizes.flip(-1)
    is_boxed = (has_box & is_given)[..., None]
    return Anchors(
        anchors,
        types,
        is_point,
        PromptHints(
            is_given,
            points.float() / extent[:, None, None],
            torch.where(is_given[..., None], labels, NO_PROMPT),
            torch.where(is_boxed, boxes.float() / extent.repeat(1, 2)[:, None], torch.nan),
            masks,
            has_mask,
        ),
    )


def _all_inside(labels: Tensor | None) -> bool:
    return labels is None or torch.compiler.is_compiling() or bool((labels == INSIDE).all())


def _has_gaps(boxes: Tensor) -> bool:
    return not torch.compiler.is_compiling() and bool((boxes == NO_PROMPT).all(-1).any())


def _check_shapes(
    boxes: Tensor | None, points: Tensor | None, labels: Tensor | None, masks: Tensor | None, batch_size: int
) -> None:
    wanted = {
        "input_boxes": (boxes, (batch_size, "N", 4), {2: 4}),
        "input_points": (points, (batch_size, "N", "P", 2), {3: 2}),
        "input_labels": (labels, (batch_size, "N", "P"), {}),
        "input_masks": (masks, (batch_size, "N", "H / 4", "W / 4"), {}),
    }
    counts: dict[str, int] = {}
    for name, (value, shape, fixed) in wanted.items():
        if value is None:
            continue
        is_wrong = value.dim() != len(shape) or value.shape[0] != batch_size or 0 in value.shape[1:]
        if is_wrong or any(value.shape[axis] != width for axis, width in fixed.items()):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}: expected ({', '.join(map(str, shape))}), N objects, in pixels "
                "of the padded input (the processor makes them)"
            )
        counts[name] = value.shape[1]
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(
            f"the prompts are for different numbers of objects ({told}): give each object a place in every one, filled "
            f"with {NO_PROMPT} where it has no point or box and with zeros where it has no mask"
        )
    if labels is not None and points is not None and labels.shape != points.shape[:-1]:
        raise ValueError(
            f"input_labels has shape {tuple(labels.shape)}, input_points {tuple(points.shape)}: give each point a label"
        )
    _check_labels(labels)


def _check_labels(labels: Tensor | None) -> None:
    if labels is None or torch.compiler.is_compiling():
        return
    wrong = labels[(labels != INSIDE) & (labels != OUTSIDE) & (labels != NO_PROMPT)]
    if wrong.numel():
        raise ValueError(
            f"input_labels holds {wrong[0]:g}: expected {INSIDE} (inside the object), {OUTSIDE} (outside) or "
            f"{NO_PROMPT} (no point)"
        )


def _check_said(is_said: Tensor, labels: Tensor) -> None:
    if torch.compiler.is_compiling() or bool(is_said.all()):
        return
    picture, index = (~is_said).nonzero()[0].tolist()
    has_points = bool((labels[picture, index] == OUTSIDE).any())
    said = "only points outside (label 0)" if has_points else "no prompt at all"
    raise ValueError(
        f"object {index} of picture {picture} has {said}: give it a point inside (label {INSIDE}), a box or a mask"
    )
