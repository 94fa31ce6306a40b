"""Video object segmentation: the objects given in the first frame, followed through the video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch

from omg_head_video_object.figures import FollowedObjects
from omg_transformers.ops.deepest import deepest_point
from omg_transformers.ops.masks import decode_rle, rle_box, stack_rles, void_and_crowds
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.plugins.contract import API_VERSION, HeadSpec
from omg_transformers.readout.clip_masks import read_masks
from omg_transformers.readout.drawn_prompts import boxes_around, choose_targets, mask_prompts, points_inside
from omg_transformers.readout.scenes import draw_scene
from omg_transformers.structures import QueryTargets, Segments, check_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.structures import Annotation, QueryOutput, Segment


class VideoObjectHead:
    """One track per prompt, in the order of the prompts; classes play no part.

    This answers clips that the model sees at once. `ObjectSession` follows objects through videos of any length.
    """

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec(
        "video_object", query_type="prompt", is_video=True, has_classes=False, reads=("tracks",)
    )
    prompt_kinds: ClassVar[tuple[str, ...]] = ("mask", "box", "click")
    # Half of what pictures ask: a clip costs as much as its frames.
    num_prompts: ClassVar[int] = 10

    def targets(self, annotation: Annotation) -> QueryTargets:
        """One target per object of the first frame, in the annotation's order; crowds and void are `unknown`."""
        objects = _objects(annotation)
        masks = stack_rles([segment.masks for segment in objects], annotation.num_frames, annotation.size)
        unknown = void_and_crowds(annotation) & ~masks.any(0)
        labels = torch.tensor([segment.category_id for segment in objects], dtype=torch.long)
        return QueryTargets(labels, masks, unknown)

    def query_inputs(
        self, targets: Sequence[QueryTargets], *, size: tuple[int, int], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], list[QueryTargets]]:
        """`num_prompts` masks, boxes or points per clip, one kind per batch, of objects in its first frame.

        The targets are the objects' masks in all frames. Every other point is the deepest of its mask, the others lie
        anywhere inside; boxes are off by up to 5 %, masks are the true ones. A clip that shows no object first gets
        prompts in the middle and targets of which nothing is known.
        """
        kind = self.prompt_kinds[int(torch.randint(len(self.prompt_kinds), (), generator=generator))]
        questions, answers = [], []
        for target in targets:
            is_present = target.masks[:, 0].flatten(1).any(1)
            chosen = choose_targets(target, self.num_prompts, is_present=is_present, generator=generator)
            shown = chosen.masks[:, 0]
            if kind == "mask":
                questions.append(mask_prompts(shown))
            elif kind == "box":
                questions.append(boxes_around(shown, size, generator=generator))
            else:
                questions.append(points_inside(shown, size, generator=generator)[:, None])
            answers.append(chosen)
        name = {"mask": "input_masks", "box": "input_boxes", "click": "input_points"}[kind]
        return {name: torch.stack(questions)}, answers

    def evaluation_prompts(self, annotation: Annotation, *, kind: str) -> dict[str, Any]:
        """The objects of the first frame by their masks, their tight boxes or the deepest points of their masks."""
        masks = [segment.masks[0] for segment in _objects(annotation)]
        if kind == "mask":
            return {"input_masks": [decode_rle(mask) for mask in masks if mask is not None]}
        if kind == "box":
            return {"input_boxes": [list(rle_box(mask)) for mask in masks]}
        if kind == "click":
            return {
                "input_points": [
                    [list(deepest_point(decode_rle(mask).numpy()) or ())] for mask in masks if mask is not None
                ]
            }
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(map(repr, self.prompt_kinds))}")

    def postprocess(
        self,
        output: QueryOutput,
        *,
        sizes: Sequence[tuple[int, int]],
        is_thing: Sequence[bool],  # noqa: ARG002 - part of the contract; prompts have no classes
        mask_threshold: float = 0.0,
    ) -> list[Segments]:
        """One track per prompt (label -1), also where it is empty, scored by the mean probability inside.

        mask_threshold: logit above which a pixel is inside.
        """
        output = output.detach()
        check_sizes(sizes, len(output))
        results = []
        for index, size in enumerate(sizes):
            masks = output.mask_logits[index]
            clips = read_masks(masks, range(len(masks)), MaskResizer.of(output, index, size), threshold=mask_threshold)
            queries = torch.arange(len(clips), device=masks.device)
            scores = [clip.prob_sum / max(1, clip.area) for clip in clips]
            results.append(
                Segments(
                    size,
                    queries + 1,
                    torch.full_like(queries, -1),
                    torch.tensor(scores, dtype=torch.float32, device=masks.device),
                    rles=tuple(clip.rles for clip in clips),
                    info={"queries": queries},
                )
            )
        return results

    def metric(self, *, num_classes: int) -> FollowedObjects:  # noqa: ARG002 - part of the contract
        """DAVIS's J&F."""
        return FollowedObjects()

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """Things and stuff of random classes, one crowd and one void region; everything moves."""
        labels = torch.randint(num_classes, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
        return draw_scene(labels, num_classes=num_classes, size=size, seed=seed, is_clip=True)


def _objects(annotation: Annotation) -> list[Segment]:
    return [segment for segment in annotation.segments if segment.masks[0] is not None and not segment.is_crowd]
