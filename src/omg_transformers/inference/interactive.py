"""A user at work on one picture: it is encoded once, then points, boxes and masks come and go."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from omg_transformers.inference.requests import make_request
from omg_transformers.inference.results import on_cpu
from omg_transformers.ops.scores import suppress_overlaps
from omg_transformers.plugins import load_head
from omg_transformers.processing.pictures import read_picture
from omg_transformers.processing.prompts import prepare_prompts
from omg_transformers.structures import NO_PROMPT, Segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.inference.requests import SeenClasses
    from omg_transformers.model.modeling import OMGSegModel, OMGSegOutput
    from omg_transformers.model.query_decoder import ImageFeatures
    from omg_transformers.processing import OMGSegProcessor
    from omg_transformers.processing.processor import Labels
    from omg_transformers.structures import QueryOutput

TASK = "interactive"
QUERIES_AT_ONCE = 256
TENSORS = ("class_logits", "mask_logits", "iou_logits", "query_states")


@dataclass(frozen=True, slots=True)
class Said:
    """One thing a user said about one object, in pixels of the picture."""

    object_id: int
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, ...] | None = None
    mask: Any = None


@dataclass(frozen=True, slots=True)
class _Picture:
    size: tuple[int, int]
    resized_size: tuple[int, int]
    input_size: tuple[int, int]
    features: ImageFeatures


class InteractiveSession:
    """Masks of objects in one picture from points, boxes and masks, corrected by more of them.

    labels: names from which every mask gets its own, as in the pipeline; None: masks stay nameless. seen_classes: which
    of them were trained, as in the pipeline: a CLIP backbone helps with the others. Names may be exchanged at any time
    (`set_labels`): the features of the picture do not depend on them.
    Every `add_...` checks what it is given, adds it to the object and answers with the masks of all objects; a prompt
    after the first costs only the decoder.
    """

    def __init__(
        self,
        model: OMGSegModel,
        processor: OMGSegProcessor,
        *,
        labels: Labels | None = None,
        seen_classes: SeenClasses | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.history: list[Said] = []
        self._picture: _Picture | None = None
        self.set_labels(labels, seen_classes=seen_classes)

    def set_labels(self, labels: Labels | None, *, seen_classes: SeenClasses | None = None) -> None:
        """The names that masks get from now on, and which of them were trained; None: none."""
        self.request = make_request(
            self.model, self.processor, load_head(TASK), labels=labels, seen_classes=seen_classes
        )

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects something was said about, in the order in which they were first named."""
        return tuple(dict.fromkeys(said.object_id for said in self.history))

    @torch.inference_mode()
    def set_picture(self, picture: Any) -> None:
        """Encode a picture, in any form that `read_picture` takes; what was said about the one before is forgotten."""
        pixels = read_picture(picture, max_pixels=self.processor.image_processor.max_pixels)
        inputs = self.processor.image_processor([pixels])
        mask = torch.as_tensor(np.asarray(inputs["pixel_mask"]))
        values = torch.as_tensor(np.asarray(inputs["pixel_values"])).to(self.model.device, self.model.dtype)
        self._picture = _Picture(
            size=(pixels.shape[0], pixels.shape[1]),
            resized_size=(int(mask[0, :, 0].sum()), int(mask[0, 0].sum())),
            input_size=(values.shape[-2], values.shape[-1]),
            features=self.model.get_image_features(values, mask.to(self.model.device)),
        )
        self.history = []

    def add_points(self, points: Any, labels: Sequence[int] | None = None, *, object_id: int = 1) -> Segments:
        """Points [[x, y], ...] inside the object (label 1, the default) or outside (0)."""
        rows = [tuple(float(value) for value in row) for row in np.asarray(points, dtype=float).reshape(-1, 2)]
        flags = [1] * len(rows) if labels is None else [int(label) for label in labels]
        if len(flags) != len(rows) or not rows:
            raise ValueError(f"labels holds {len(flags)} values for {len(rows)} points: give one label per point")
        return self._add(Said(object_id, tuple((x, y) for x, y in rows), tuple(flags)))

    def add_box(self, box: Sequence[float], *, object_id: int = 1) -> Segments:
        """The object's box (x1, y1, x2, y2), instead of an earlier one."""
        return self._add(Said(object_id, box=tuple(float(value) for value in box)))

    def add_mask(self, mask: Any, *, object_id: int = 1) -> Segments:
        """The object's rough mask (H, W) of the picture's size, instead of an earlier one."""
        return self._add(Said(object_id, mask=mask))

    def undo(self) -> Segments:
        """Take back what was said last; the masks without it."""
        if not self.history:
            raise ValueError("there is nothing to undo: no point, box or mask was added")
        self.history = self.history[:-1]
        return self.masks()

    def remove(self, object_id: int) -> Segments:
        """Forget all about one object; the masks of the others."""
        if object_id not in self.object_ids:
            raise ValueError(f"object_id is {object_id}: known are {', '.join(map(str, self.object_ids)) or 'none'}")
        self.history = [said for said in self.history if said.object_id != object_id]
        return self.masks()

    def reset(self) -> None:
        """Forget all that was said; the picture stays."""
        self.history = []

    def masks(self, *, only: Sequence[str] | None = None, multimask_output: bool = False, **options: Any) -> Segments:
        """The masks of all objects: ids are object ids, scores the predicted IoU, labels the names' places.

        only: leave out masks whose name is none of these. multimask_output: several masks per object, of other extents,
        one after the other, with scores that compare them (predicted IoU times stability); then `info["prompts"]` holds
        the object of each and ids just count. options: of the head.
        """
        picture = self._require_picture()
        wanted = None if only is None else self._label_indices(only)
        if not self.history:
            return _nothing(picture.size)
        objects = self.object_ids
        prompts = {**self._prompts(self.history), "multimask_output": multimask_output}
        segments = self._segments(self._ask(prompts).to_query_output(), options, prompts)
        ids = torch.tensor(objects).repeat_interleave(len(segments) // len(objects))
        info = {**segments.info, "prompts": ids}
        segments = dataclasses.replace(segments, ids=segments.ids if multimask_output else ids, info=info)
        return segments if wanted is None else _select(segments, torch.isin(segments.labels, wanted).nonzero()[:, 0])

    def everything(
        self,
        *,
        points_per_side: int = 16,
        min_quality: float = 0.3,
        max_iou: float = 0.7,
        min_area_share: float = 0.001,
        only: Sequence[str] | None = None,
    ) -> Segments:
        """Masks of whatever a grid of points falls on, best first, without those that repeat a better one.

        points_per_side: along the longer side of the picture. min_quality: least score, the predicted IoU times the
        mean probability inside. max_iou: two masks that overlap more are one. min_area_share: of the picture. only:
        names to keep.
        """
        picture = self._require_picture()
        if points_per_side < 1:
            raise ValueError(f"points_per_side is {points_per_side}: expected at least 1")
        wanted = None if only is None else self._label_indices(only)
        points = _grid(picture.size, points_per_side)
        parts = [
            self._ask(self._scaled({"input_points": [[[point] for point in points[start : start + QUERIES_AT_ONCE]]]}))
            for start in range(0, len(points), QUERIES_AT_ONCE)
        ]
        output = _join([part.to_query_output() for part in parts])
        height, width = (-(-side // 4) for side in picture.resized_size)
        logits = output.mask_logits[0, :, 0, :height, :width]
        inside = logits > 0
        areas = inside.flatten(1).sum(1)
        surety = (logits.sigmoid() * inside).flatten(1).sum(1) / areas.clamp(min=1)
        scores = surety if output.iou_logits is None else surety * output.iou_logits[0].sigmoid()
        kept = ((scores > min_quality) & (areas > min_area_share * height * width)).nonzero()[:, 0]
        kept = kept[scores[kept].argsort(descending=True, stable=True)]
        kept = kept[suppress_overlaps(inside[kept], scores[kept], max_iou)]
        segments = self._segments(_queries(output, kept), {})
        segments = dataclasses.replace(segments, scores=scores[kept].float().cpu())
        return segments if wanted is None else _select(segments, torch.isin(segments.labels, wanted).nonzero()[:, 0])

    @torch.inference_mode()
    def segment(
        self,
        task: str,
        *,
        labels: Labels | None = None,
        seen_classes: SeenClasses | None = None,
        **options: Any,
    ) -> Segments:
        """The answer of a task without prompts ("panoptic", "semantic", ...) on the same features."""
        picture = self._require_picture()
        request = make_request(
            self.model, self.processor, load_head(task), labels=labels, seen_classes=seen_classes, options=options
        )
        if request.head.spec.query_type != "learned" or request.head.spec.is_video:
            raise ValueError(f"task {task!r} is not asked of a whole picture: name one such as 'panoptic'")
        output = self.model(image_features=picture.features, **request.class_inputs(self.model.device))
        return on_cpu(request.answer(output.to_query_output(), sizes=[picture.size])[0])

    def _add(self, said: Said) -> Segments:
        self._require_picture()
        if isinstance(said.object_id, bool) or not isinstance(said.object_id, int) or said.object_id < 1:
            raise ValueError(f"object_id is {said.object_id!r}: expected a whole number of at least 1")
        history = [*self.history, said]
        self._prompts(history)  # raises before anything is changed
        self.history = history
        return self.masks()

    def _prompts(self, history: Sequence[Said]) -> dict[str, Tensor]:
        points: dict[int, list[tuple[float, float]]] = {said.object_id: [] for said in history}
        labels: dict[int, list[int]] = {said.object_id: [] for said in history}
        boxes: dict[int, Any] = dict.fromkeys(points, (float(NO_PROMPT),) * 4)
        masks: dict[int, Any] = dict.fromkeys(points)
        for said in history:
            points[said.object_id] += said.points
            labels[said.object_id] += said.labels
            boxes[said.object_id] = said.box or boxes[said.object_id]
            masks[said.object_id] = said.mask if said.mask is not None else masks[said.object_id]
        given: dict[str, Any] = {}
        if any(points.values()):
            given |= {"input_points": [list(points.values())], "input_labels": [list(labels.values())]}
        if any(said.box is not None for said in history):
            given["input_boxes"] = [list(boxes.values())]
        if any(mask is not None for mask in masks.values()):
            given["input_masks"] = [list(masks.values())]
        return self._scaled(given)

    def _scaled(self, given: dict[str, Any]) -> dict[str, Tensor]:
        picture = self._require_picture()
        prepared = prepare_prompts(
            given, sizes=[picture.size], resized_sizes=[picture.resized_size], input_size=picture.input_size
        )
        return {name: value.to(self.model.device) for name, value in prepared.items()}

    @torch.inference_mode()
    def _ask(self, prompts: dict[str, Any]) -> OMGSegOutput:
        return self.model(
            image_features=self._require_picture().features,
            **self.request.class_inputs(self.model.device),
            **prompts,
        )

    def _segments(
        self, output: QueryOutput, options: dict[str, Any], prompts: dict[str, Any] | None = None
    ) -> Segments:
        request = dataclasses.replace(self.request, options={**self.request.options, **options})
        return on_cpu(request.answer(output, sizes=[self._require_picture().size], prompts=prompts)[0])

    def _label_indices(self, names: Sequence[str]) -> Tensor:
        space = self.request.label_space
        if space is None:
            raise ValueError("only= needs names to choose from: give the session labels=[...], or call set_labels")
        return torch.tensor([space.index(name) for name in names])

    def _require_picture(self) -> _Picture:
        if self._picture is None:
            raise ValueError("the session has no picture yet: call set_picture(picture) first")
        return self._picture


def _nothing(size: tuple[int, int]) -> Segments:
    none = torch.zeros(0, dtype=torch.long)
    return Segments(size, none, none, torch.zeros(0), rles=())


def _select(segments: Segments, kept: Tensor) -> Segments:
    rows = kept.tolist()
    return dataclasses.replace(
        segments,
        ids=segments.ids[kept],
        labels=segments.labels[kept],
        scores=segments.scores[kept],
        rles=None if segments.rles is None else tuple(segments.rles[row] for row in rows),
        info={name: value[kept] for name, value in segments.info.items()},
    )


def _grid(size: tuple[int, int], points_per_side: int) -> list[tuple[float, float]]:
    """Points (x, y) in pixels, as far apart downwards as across, row by row."""
    height, width = size
    rows, columns = (max(1, round(points_per_side * side / max(size))) for side in size)
    return [
        ((column + 0.5) * width / columns, (row + 0.5) * height / rows)
        for row in range(rows)
        for column in range(columns)
    ]


def _join(outputs: Sequence[QueryOutput]) -> QueryOutput:
    joined: dict[str, Any] = {
        name: torch.cat([getattr(output, name) for output in outputs], dim=1)
        for name in TENSORS
        if getattr(outputs[0], name) is not None
    }
    return dataclasses.replace(outputs[0], **joined)


def _queries(output: QueryOutput, kept: Tensor) -> QueryOutput:
    kept_parts: dict[str, Any] = {
        name: value[:, kept] for name in TENSORS if (value := getattr(output, name)) is not None
    }
    return dataclasses.replace(output, **kept_parts)
