"""How several clicks are answered without trained weights for it: by combining the answers to single prompts.

The union of what the points inside ask for, minus what the points outside ask for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from omg_transformers.model.prompt_inputs import INSIDE, OUTSIDE
from omg_transformers.model.query_decoder import Prediction
from omg_transformers.readout.clicks import DISK_RADIUS
from omg_transformers.structures import Queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omg_transformers.model.padding import Content

# The logit around a click, where its own label holds.
DISK_LOGIT = 1.0
# The logit of a given mask; and up to which logit the model counts beside it.
MASK_LOGIT, SURE = 4.0, 5.0


class Encode(Protocol):
    """The prompt encoder, bound to a batch."""

    def __call__(self, *, inputs: Mapping[str, Tensor]) -> Queries:
        """Queries for prompts in input pixels."""


def add_click_queries(queries: Queries, encode: Encode, content: Content) -> Queries:
    """Behind the N queries one for each of the N * P points alone."""
    assert queries.hints is not None
    points = queries.hints.points_xy_norm.flatten(1, 2)
    extent = content.as_float(len(points), points.device).flip(-1)
    alone = encode(inputs={"input_points": (points.clamp(0, 1) * extent[:, None])[:, :, None]})
    assert queries.anchors_xy_norm is not None
    assert alone.anchors_xy_norm is not None
    assert queries.regions_xyxy_norm is not None
    assert alone.regions_xyxy_norm is not None
    return replace(
        queries,
        content=torch.cat([queries.content, alone.content], dim=1),
        position=torch.cat([queries.position, alone.position], dim=1),
        anchors_xy_norm=torch.cat([queries.anchors_xy_norm, alone.anchors_xy_norm], dim=1),
        regions_xyxy_norm=torch.cat([queries.regions_xyxy_norm, alone.regions_xyxy_norm], dim=1),
    )


def apply_clicks(prediction: Prediction, queries: Queries, content: Content) -> Prediction:
    """The answers to N + N * P queries as N answers. Classes and qualities stay those of the query itself.

    - A given mask holds where the model is not sure of the contrary.
    - Points inside add what they ask for, within the box if there is one.
    - A point outside takes away what it asks for; if that holds a point inside too, only what is nearer to it. Where no
      point is inside, the middle of the box or mask stands for one.
    - Around each point its own label holds.
    """
    assert queries.anchors_xy_norm is not None
    assert queries.hints is not None
    hints = queries.hints
    count, num_points = hints.point_labels.shape[1:]
    masks = prediction.mask_logits
    own, alone = masks[:, :count], masks[:, count:].unflatten(1, (count, num_points))
    if hints.masks is not None:
        given = MASK_LOGIT * (2 * hints.masks[:, :, None] - 1)
        given = torch.cat([own[:, :, :1].clamp(-SURE, SURE) + given, own[:, :, 1:]], dim=2)
        own = torch.where(hints.has_mask[..., None, None, None], given, own)
    size = (masks.shape[-2], masks.shape[-1])
    is_inside, is_outside = hints.point_labels == INSIDE, hints.point_labels == OUTSIDE
    distances = _distances(hints.points_xy_norm, size, content)  # (B, N, P, h, w)

    added = alone.masked_fill(~is_inside[..., None, None, None], -torch.inf).amax(2)
    is_boxed = ~hints.boxes_xyxy_norm.isnan().any(-1)
    allowed = _in_boxes(hints.boxes_xyxy_norm, size, content) | ~is_boxed[..., None, None]
    combined = torch.where(allowed[:, :, None], torch.maximum(own, added), own)

    nearest_inside = torch.where(is_inside[..., None, None], distances, torch.inf).amin(2)
    middle = queries.anchors_xy_norm[:, :count, None]
    is_pointed = is_inside.any(-1, keepdim=True)
    to_inside = torch.where(is_pointed[..., None], nearest_inside, _distances(middle, size, content)[:, :, 0])
    places = torch.cat([hints.points_xy_norm, middle], dim=2)
    is_place = torch.cat([is_inside, ~is_pointed], dim=2)
    holds = _holds_any(alone[:, :, :, 0], places, is_place, content)  # (B, N, P)
    for point in range(num_points):
        taken = -alone[:, :, point]
        nearer = (distances[:, :, point] < to_inside)[:, :, None]
        taken = torch.where(nearer | ~holds[:, :, point, None, None, None], taken, torch.inf)
        is_taken = is_outside[:, :, point, None, None, None]
        combined = torch.where(is_taken, torch.minimum(combined, taken), combined)

    nearest_outside = torch.where(is_outside[..., None, None], distances, torch.inf).amin(2)
    first = combined[:, :, 0]
    first = torch.where(nearest_inside <= DISK_RADIUS, first.clamp(min=DISK_LOGIT), first)
    first = torch.where(nearest_outside <= DISK_RADIUS, first.clamp(max=-DISK_LOGIT), first)
    combined = torch.cat([first[:, :, None], combined[:, :, 1:]], dim=2)
    classes, opinion = prediction.class_logits, prediction.backbone_class_logits
    return Prediction(
        None if classes is None else classes[:, :count],
        torch.where(hints.is_given[..., None, None, None], combined, own),
        prediction.iou_logits[:, :count],
        None if opinion is None else opinion[:, :count],
    )


def _distances(points: Tensor, size: tuple[int, int], content: Content) -> Tensor:
    """points: (B, N, P, 2) in [0, 1]. Returns (B, N, P, h, w) in shares of the picture's longer side."""
    extents = content.extents(size, points.device).float()
    longest = extents.amax(-1)[:, None, None, None]
    places = points * extents.flip(-1)[:, None, None]
    x = (torch.arange(size[1], device=points.device) + 0.5 - places[..., :1]) / longest
    y = (torch.arange(size[0], device=points.device) + 0.5 - places[..., 1:]) / longest
    return (y.square()[..., None] + x.square()[..., None, :]).sqrt()


def _in_boxes(boxes: Tensor, size: tuple[int, int], content: Content) -> Tensor:
    """boxes: (B, N, 4) in [0, 1]. Returns (B, N, h, w) bool."""
    corners = boxes * content.extents(size, boxes.device).float().flip(-1).repeat(1, 2)[:, None]
    x = torch.arange(size[1], device=boxes.device) + 0.5
    y = torch.arange(size[0], device=boxes.device) + 0.5
    is_across = (x > corners[..., :1]) & (x < corners[..., 2:3])
    is_down = (y > corners[..., 1:2]) & (y < corners[..., 3:])
    return is_down[..., None] & is_across[..., None, :]


def _holds_any(masks: Tensor, points: Tensor, is_point: Tensor, content: Content) -> Tensor:
    """masks: (B, N, P, h, w) logits. points: (B, N, R, 2). Returns (B, N, P): which of the masks hold any of them."""
    size = (masks.shape[-2], masks.shape[-1])
    share = content.extents(size, masks.device).to(masks).flip(-1) / masks.new_tensor([size[1], size[0]])
    grid = points.clamp(0, 1).to(masks) * share[:, None, None] * 2 - 1
    found = F.grid_sample(masks.flatten(0, 1), grid.flatten(0, 1)[:, None], align_corners=False)
    found = found[:, :, 0].unflatten(0, masks.shape[:2])  # (B, N, P, R)
    return ((found > 0) & is_point[:, :, None]).any(-1)
