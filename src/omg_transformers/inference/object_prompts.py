"""How a person says which object is meant in one frame, and the mask that this makes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from omg_transformers.plugins import load_head
from omg_transformers.readout.clicks import hold_clicks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.model.modeling import OMGSegModel
    from omg_transformers.processing.processor import OMGSegProcessor


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectPrompt:
    """One object in one frame by a mask (H, W) bool, a box (x1, y1, x2, y2) or points with labels, in its pixels."""

    object_id: int
    mask: np.ndarray[Any, Any] | None = None
    box: tuple[float, ...] | None = None
    points: tuple[tuple[float, ...], ...] | None = None
    point_labels: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        object_id: int,
        *,
        mask: Any = None,
        box: Sequence[float] | None = None,
        points: Sequence[Sequence[float]] | None = None,
        point_labels: Sequence[int] | None = None,
    ) -> Self:
        """Check what a caller gave: exactly one of mask, box and points."""
        given = [name for name, value in (("mask", mask), ("box", box), ("points", points)) if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"object {object_id} is given by {' and '.join(given) or 'nothing'}: expected one of "
                "mask=, box= and points="
            )
        if point_labels is not None and (points is None or len(point_labels) != len(points)):
            raise ValueError(f"point_labels has {len(point_labels)} entries: expected one for each point")
        if mask is not None:
            mask = np.asarray(mask.detach().cpu() if isinstance(mask, torch.Tensor) else mask) != 0
            if mask.ndim != 2 or not mask.any():
                raise ValueError(
                    f"the mask of object {object_id} "
                    + (f"has shape {mask.shape}: expected (H, W)" if mask.ndim != 2 else "is empty: show the object")
                )
        return cls(
            object_id,
            mask,
            None if box is None else tuple(float(side) for side in box),
            None if points is None else tuple(tuple(float(side) for side in point) for point in points),
            None if point_labels is None else tuple(int(label) for label in point_labels),
        )


@torch.no_grad()
def mask_of(
    prompt: ObjectPrompt, frame: np.ndarray[Any, Any], model: OMGSegModel, processor: OMGSegProcessor
) -> Tensor:
    """What a prompt means in a frame: (H, W) bool on the CPU. ValueError when the model sees nothing there."""
    size = frame.shape[:2]
    if prompt.mask is not None:
        if prompt.mask.shape != size:
            raise ValueError(
                f"the mask of object {prompt.object_id} is {prompt.mask.shape[1]} x {prompt.mask.shape[0]} but the "
                f"frame is {size[1]} x {size[0]}: give it in pixels of the frame"
            )
        return torch.from_numpy(prompt.mask)
    asked: dict[str, Any] = {}
    if prompt.box is not None:
        asked["input_boxes"] = [[list(prompt.box)]]
    else:
        asked["input_points"] = [[[list(point) for point in prompt.points or ()]]]
        if prompt.point_labels is not None:
            asked["input_labels"] = [[list(prompt.point_labels)]]
    inputs = processor([frame], **asked)
    inputs.pop("class_embeds", None)
    inputs = inputs.to(model.device)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    output = model(**inputs, query_type="prompt").to_query_output()
    results = load_head("video_object").postprocess(output, sizes=[size], is_thing=())
    if prompt.points is not None:
        results = hold_clicks(results, output, inputs["input_points"], inputs.get("input_labels"))
    (segments,) = results
    mask = segments.mask(0)[0]
    if prompt.box is not None:
        left, top, right, bottom = (max(0, round(side)) for side in prompt.box)
        inside = torch.zeros_like(mask)
        inside[top:bottom, left:right] = True
        mask &= inside
    if not mask.any():
        raise ValueError(f"the model sees nothing where object {prompt.object_id} was pointed at: give its mask")
    return mask
