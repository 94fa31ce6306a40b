"""Interactive segmentation: the mask that each point, box or mask asks for; classes only name it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.nn import functional

from omg_head_interactive.corrections import correct
from omg_transformers.metrics.prompt import MeanPromptIoU
from omg_transformers.ops.masks import encode_mask, encode_masks, stack_rles, void_and_crowds
from omg_transformers.ops.regions import random_partition
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.drawn_prompts import (
    boxes_around,
    choose_targets,
    deep_click,
    drawn_click,
    points_inside,
    tight_box,
)
from omg_transformers.structures import Annotation, QueryTargets, Segment, Segments, check_sizes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from omg_transformers.structures import QueryOutput


class InteractiveHead:
    """One mask per prompt, in the order of the prompts, scored by the predicted mask quality."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("interactive", query_type="prompt", has_classes=False)
    prompt_kinds: ClassVar[tuple[str, ...]] = ("box", "click", "random_click")
    num_prompts: ClassVar[int] = 20

    def targets(self, annotation: Annotation) -> QueryTargets:
        """One target per segment, thing or stuff, in the annotation's order; crowds and void are `unknown`."""
        known = _known_segments(annotation)
        masks = stack_rles([segment.masks for segment in known], annotation.num_frames, annotation.size)
        unknown = void_and_crowds(annotation) & ~masks.any(0)
        labels = torch.tensor([segment.category_id for segment in known], dtype=torch.long)
        return QueryTargets(labels, masks, unknown)

    def query_inputs(
        self, targets: Sequence[QueryTargets], *, size: tuple[int, int], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], list[QueryTargets]]:
        """`num_prompts` points or boxes per sample, one kind per batch, each about the first frame it occurs in.

        Every other point is the deepest of its mask, the others lie anywhere inside; boxes are off by up to 5 %.
        A sample without segments gets prompts in the middle of the picture and targets of which nothing is known.
        """
        with_boxes = bool(torch.rand((), generator=generator) < 0.5)
        questions, answers = [], []
        for target in targets:
            is_present = target.masks.flatten(1).any(1)
            chosen = choose_targets(target, self.num_prompts, is_present=is_present, generator=generator)
            masks = _first_present(chosen.masks)
            if with_boxes:
                questions.append(boxes_around(masks, size, generator=generator))
            else:
                questions.append(points_inside(masks, size, generator=generator)[:, None])
            answers.append(chosen)
        inputs = torch.stack(questions) if questions else torch.zeros((0, self.num_prompts, 4))
        return {"input_boxes" if with_boxes else "input_points": inputs}, answers

    def corrections(
        self,
        inputs: Mapping[str, Tensor],
        targets: Sequence[QueryTargets],
        output: QueryOutput,
        *,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """The prompts of `query_inputs` with clicks into the largest errors of `output`, and masks for some.

        Where the first frame of a clip shows nothing of an object, its mask there is empty.
        """
        logits = output.mask_logits.detach()[:, :, 0].float().cpu()
        masks = torch.stack([target.masks[:, 0].cpu() for target in targets])
        size = (logits.shape[-2], logits.shape[-1])
        truths = functional.interpolate(masks.float(), size=size, mode="area") > 0.5
        return correct({name: value.cpu() for name, value in inputs.items()}, truths, logits, generator=generator)

    def postprocess(
        self,
        output: QueryOutput,
        *,
        sizes: Sequence[tuple[int, int]],
        is_thing: Sequence[bool],  # noqa: ARG002 - part of the contract; prompts have no classes
        mask_threshold: float = 0.0,
        num_proposals: int | None = None,
    ) -> list[Segments]:
        """One segment per prompt, also where the mask is empty; its label is the likeliest class, -1 without classes.

        mask_threshold: logit above which a pixel is inside. num_proposals: only the masks of best predicted quality,
        best first. Without predicted qualities the score is the mean probability inside the mask. `info` holds the
        probability of each label as "label_probs".
        """
        output = output.detach()
        check_sizes(sizes, len(output))
        if num_proposals is not None and output.iou_logits is None:
            raise ValueError("num_proposals needs iou_logits, and the output has none: leave num_proposals None")
        results = []
        for index, size in enumerate(sizes):
            masks = output.mask_logits[index]
            queries = torch.arange(len(masks), device=masks.device)
            qualities = None if output.iou_logits is None else output.iou_logits[index].float().sigmoid()
            if num_proposals is not None and qualities is not None:
                queries = qualities.argsort(descending=True, stable=True)[:num_proposals]
            resizer = MaskResizer.of(output, index, size)
            segments = _answers(masks, queries, qualities, resizer, mask_threshold)
            if output.class_logits is not None and output.class_logits.shape[-1] > 1:
                probs, labels = output.class_logits[index, queries, :-1].float().softmax(-1).max(-1)
                segments = replace(segments, labels=labels, info={**segments.info, "label_probs": probs})
            results.append(segments)
        return results

    def evaluation_prompts(self, annotation: Annotation, *, kind: str) -> dict[str, Any]:
        """One prompt per segment that is no crowd, in the annotation's order, about the first frame it is in.

        kind: "box": its exact box. "click": its deepest pixel. "random_click": a pixel of it drawn by its shape.
        {} for an annotation without such segments: there is nothing to ask.
        """
        if kind not in self.prompt_kinds:
            raise ValueError(f"kind is {kind!r}: the interactive head is judged by {', '.join(self.prompt_kinds)}")
        masks = _first_present(self.targets(annotation).masks)
        if not len(masks):
            return {}
        if kind == "box":
            return {"input_boxes": [tight_box(mask) for mask in masks]}
        click = deep_click if kind == "click" else drawn_click
        return {"input_points": [[click(mask)] for mask in masks]}

    def metric(self, *, num_classes: int) -> MeanPromptIoU:
        """Mean IoU over prompts."""
        return MeanPromptIoU(num_classes)

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """Things and stuff of random classes, one crowd and one void region."""
        *regions, void = random_partition(7, size, seed=seed).unbind()
        labels = torch.randint(num_classes, (len(regions),), generator=torch.Generator().manual_seed(seed)).tolist()
        segments = tuple(
            Segment(label, encode_masks(region[None]), track_id=number, is_crowd=number == 2)
            for number, (label, region) in enumerate(zip(labels, regions, strict=True), 1)
        )
        is_thing = tuple(label % 2 == 0 for label in range(num_classes))
        return Annotation(size, is_thing, segments, (encode_mask(void),))


def _known_segments(annotation: Annotation) -> list[Segment]:
    """What `MeanPromptIoU` counts, in its order."""
    return [segment for segment in annotation.segments if any(segment.masks) and not segment.is_crowd]


def _first_present(masks: Tensor) -> Tensor:
    """Of each (T, H, W) mask the first frame that is not empty: (N, H, W)."""
    first = masks.flatten(2).any(2).to(torch.uint8).argmax(1)
    return masks[torch.arange(len(masks), device=masks.device), first]


def _answers(
    masks: Tensor, queries: Tensor, qualities: Tensor | None, resizer: MaskResizer, mask_threshold: float
) -> Segments:
    """masks: (Q, T, h, w) logits. qualities: (Q,) in [0, 1]."""
    frames = range(masks.shape[1])
    bounds = [resizer.bounds(masks[:, frame])[1].cpu() for frame in frames]
    rles, scores = [], []
    for query in queries.tolist():
        parts = [
            resizer.threshold(
                masks[query, frame],
                bounds[frame][..., query],
                threshold=mask_threshold,
                with_probs=qualities is None,
            )
            for frame in frames
        ]
        rles.append(tuple(part.rle for part in parts))
        scores.append(sum(part.prob_sum for part in parts) / max(1, sum(part.area for part in parts)))
    means = torch.tensor(scores, dtype=torch.float32, device=masks.device)
    return Segments(
        resizer.target_size,
        torch.arange(1, len(rles) + 1, device=masks.device),
        torch.full((len(rles),), -1, device=masks.device),
        means if qualities is None else qualities[queries],
        rles=tuple(rles),
        info={"queries": queries},
    )
