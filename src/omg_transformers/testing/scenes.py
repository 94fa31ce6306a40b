"""Scenes and decoder outputs from which the conformance checks are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from omg_transformers.ops.masks import decode_rles, encode_masks
from omg_transformers.structures import Annotation, QueryOutput, QueryTargets, Segment, Segments

if TYPE_CHECKING:
    from collections.abc import Callable

    from omg_transformers.plugins import TaskHead

SIZE = (33, 47)  # odd and unequal: a square picture hides swapped axes
NUM_CLASSES = 5
MIN_QUERIES = 12
CONFIDENT = 20.0  # exact in bfloat16, and sigmoid(-20) is 2e-9: no threshold is near


def perfect_output(
    targets: QueryTargets, *, num_classes: int, num_queries: int | None = None, has_classes: bool = True
) -> QueryOutput:
    """The output of a model that is right and sure: query i answers target i, on a mask grid of the targets' size.

    num_queries: Q, at least one per target (default: exactly that); queries that are left over say "no object".
    A target without a class (label -1) gets void as its class. has_classes=False leaves `class_logits` out.
    Returns a batch of one: class_logits (1, Q, K + 1), mask_logits (1, Q, T, H, W), iou_logits (1, Q).
    """
    count = len(targets.labels)
    queries = count if num_queries is None else num_queries
    if queries < count:
        raise ValueError(f"num_queries is {queries} for {count} targets: give at least one query per target")
    classes = torch.full((queries,), num_classes)
    classes[:count] = torch.where(targets.labels < 0, num_classes, targets.labels)
    class_logits = torch.full((1, queries, num_classes + 1), -CONFIDENT)
    class_logits[0, torch.arange(queries), classes] = CONFIDENT
    mask_logits = torch.full((1, queries, *targets.masks.shape[1:]), -CONFIDENT)
    mask_logits[0, :count][targets.masks] = CONFIDENT
    iou_logits = torch.full((1, queries), -CONFIDENT)
    iou_logits[0, :count] = CONFIDENT
    return QueryOutput(class_logits if has_classes else None, mask_logits, iou_logits)


@dataclass(frozen=True, slots=True)
class Scene:
    """An annotation of one head, what the head wants predicted for it, and the output that predicts it."""

    head: TaskHead
    annotation: Annotation
    targets: QueryTargets
    output: QueryOutput

    def predict(self, output: QueryOutput | None = None, *, size: tuple[int, int] = SIZE) -> Segments:
        """The head's result for an output of this scene (default: the perfect one)."""
        return postprocess(self.head, self.output if output is None else output, size=size)[0]


def postprocess(head: TaskHead, output: QueryOutput, *, size: tuple[int, int] = SIZE) -> list[Segments]:
    """The head's results with every sample at `size`."""
    return head.postprocess(output, sizes=[size] * len(output), is_thing=thing_flags(head))


def thing_flags(head: TaskHead) -> tuple[bool, ...]:
    """Which of the kit's classes are things, as the head's own example says."""
    return example(head).is_thing


def example(head: TaskHead, seed: int = 0) -> Annotation:
    """The head's example annotation at the kit's size."""
    return head.example_annotation(seed=seed, size=SIZE, num_classes=NUM_CLASSES)


def make_scene(head: TaskHead, seed: int = 0) -> Scene:
    """A random scene with its perfect output."""
    return scene_of(head, example(head, seed))


def scene_of(head: TaskHead, annotation: Annotation) -> Scene:
    """The scene of an annotation. Heads that ask questions get one query per target, the others spare ones."""
    targets = head.targets(annotation)
    spare = head.spec.query_type == "learned"
    output = perfect_output(
        targets,
        num_classes=NUM_CLASSES,
        num_queries=max(MIN_QUERIES, len(targets.labels) + 2) if spare else None,
        has_classes=head.spec.has_classes,
    )
    return Scene(head, annotation, targets, output)


def empty_annotation(annotation: Annotation) -> Annotation:
    """The same picture with nothing in it."""
    return replace(annotation, segments=(), void=(None,) * annotation.num_frames)


def noisy_output(output: QueryOutput, seed: int) -> QueryOutput:
    """An unsure output, some of its answers wrong; no two scores are equal."""
    generator = torch.Generator().manual_seed(seed)

    def blur(logits: Tensor | None) -> Tensor | None:
        return None if logits is None else 0.1 * logits + 2 * torch.randn(logits.shape, generator=generator)

    mask_logits = 0.2 * output.mask_logits + torch.randn(output.mask_logits.shape, generator=generator)
    return replace(
        output, class_logits=blur(output.class_logits), mask_logits=mask_logits, iou_logits=blur(output.iou_logits)
    )


def map_tensors(output: QueryOutput, change: Callable[[Tensor], Tensor]) -> QueryOutput:
    """The output with `change` applied to each of its tensors."""

    def changed(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else change(tensor)

    return replace(
        output,
        class_logits=changed(output.class_logits),
        mask_logits=change(output.mask_logits),
        iou_logits=changed(output.iou_logits),
        query_states=changed(output.query_states),
    )


def with_unknown_regions(annotation: Annotation) -> tuple[Annotation, Tensor, Tensor, Tensor]:
    """The annotation with its top rows void and half of its widest segment a crowd.

    Returns it with the void region, the crowd and the other half of that segment, each (T, H, W) bool.
    """
    masks = {i: decode_rles(segment.masks, annotation.size) for i, segment in enumerate(annotation.segments)}
    void = torch.zeros((annotation.num_frames, *annotation.size), dtype=torch.bool)
    void[:, :4] = True
    columns = {i: (mask & ~void).any(0).any(0).nonzero()[:, 0] for i, mask in masks.items()}
    objects = [i for i in masks if not annotation.segments[i].is_crowd]
    things = [i for i in objects if annotation.is_thing[annotation.segments[i].category_id]]
    widest = max(things or objects, key=lambda i: len(columns[i]))
    if len(columns[widest]) < 2:
        raise AssertionError(
            "no segment of example_annotation is two pixels wide below its fourth row: draw larger ones"
        )
    is_right = torch.zeros_like(void)
    is_right[..., int(columns[widest][len(columns[widest]) // 2]) :] = True
    segments = []
    for i, segment in enumerate(annotation.segments):
        mask = masks[i] & ~void
        if i == widest:
            mask = mask & ~is_right
        segments.append(replace(segment, masks=encode_masks(mask)))
    crowd = masks[widest] & ~void & is_right
    source = annotation.segments[widest]
    track_id = max((segment.track_id for segment in annotation.segments), default=0) + 1
    segments.append(Segment(source.category_id, encode_masks(crowd), track_id=track_id, is_crowd=True))
    changed = replace(annotation, segments=tuple(segments), void=encode_masks(void))
    return changed, void, crowd, masks[widest] & ~void & ~is_right
