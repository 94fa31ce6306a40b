"""One scored mask per object; masks may overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from omg_transformers.ops.masks import stack_rles, void_and_crowds
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.ops.scores import class_probs, suppress_overlaps
from omg_transformers.readout.clip_masks import read_masks
from omg_transformers.readout.scenes import draw_scene, thing_flags
from omg_transformers.structures import QueryTargets, Segments, check_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.plugins.contract import HeadSpec
    from omg_transformers.structures import Annotation, QueryOutput


class ScoredMasks:
    """The best (query, class) pairs, each scored by class probability x mean mask probability inside its mask."""

    spec: ClassVar[HeadSpec]

    def targets(self, annotation: Annotation) -> QueryTargets:
        """One target per thing in the annotation's order; stuff is background, crowds and void are `unknown`."""
        frames, size = annotation.num_frames, annotation.size
        things = [
            segment
            for segment in annotation.segments
            if any(segment.masks) and (segment.category_id < 0 or annotation.is_thing[segment.category_id])
        ]
        known = [thing for thing in things if not thing.is_crowd]
        masks = stack_rles([thing.masks for thing in known], frames, size)
        unknown = void_and_crowds(annotation) & ~masks.any(0)
        return QueryTargets(torch.tensor([thing.category_id for thing in known], dtype=torch.long), masks, unknown)

    def postprocess(
        self,
        output: QueryOutput,
        *,
        sizes: Sequence[tuple[int, int]],
        is_thing: Sequence[bool],
        threshold: float = 0.0,
        max_per_image: int = 100,
        use_iou_score: bool = False,
        mask_nms_threshold: float | None = None,
    ) -> list[Segments]:
        """Things sorted by score, best first, as RLEs; a query may answer for several classes.

        threshold: results must score above it. max_per_image: pairs looked at, stuff included. use_iou_score: scores
        are multiplied by the predicted mask quality. mask_nms_threshold: results that overlap a better one by more
        than this IoU are dropped, whatever their classes.
        """
        output = output.detach()
        check_sizes(sizes, len(output))
        _check_options(output, max_per_image, use_iou_score)
        probs = class_probs(output.class_logits, len(is_thing))[..., :-1]
        flags = torch.tensor([bool(flag) for flag in is_thing], device=probs.device)
        results = []
        for index, size in enumerate(sizes):
            pairs = probs[index].flatten()
            scores, order = pairs.topk(min(max_per_image, len(pairs)))
            queries, labels = order // len(flags), order % len(flags)
            if use_iou_score and output.iou_logits is not None:
                scores = scores * output.iou_logits[index].float().sigmoid()[queries]
            # Above the threshold only: the mean probability inside the mask can lower a score, not raise it.
            kept = flags[labels] & (scores > threshold)
            masks = output.mask_logits[index]
            candidates = (queries[kept], labels[kept], scores[kept])
            results.append(
                _detections(masks, candidates, MaskResizer.of(output, index, size), threshold, mask_nms_threshold)
            )
        return results

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """Things of random classes, one crowd, one stuff region when there is such a class, one void region."""
        things = [label for label, flag in enumerate(thing_flags(num_classes)) if flag]
        generator = torch.Generator().manual_seed(seed)
        labels = [things[pick] for pick in torch.randint(len(things), (5,), generator=generator).tolist()]
        labels += [1] if num_classes > 1 else []
        return draw_scene(labels, num_classes=num_classes, size=size, seed=seed, is_clip=self.spec.is_video)


def _check_options(output: QueryOutput, max_per_image: int, use_iou_score: bool) -> None:
    if max_per_image < 1:
        raise ValueError(f"max_per_image is {max_per_image}: expected at least 1")
    if use_iou_score and output.iou_logits is None:
        raise ValueError("use_iou_score=True needs iou_logits, and the output has none: leave it False")


def _detections(
    masks: Tensor,
    candidates: tuple[Tensor, Tensor, Tensor],
    resizer: MaskResizer,
    threshold: float,
    mask_nms_threshold: float | None,
) -> Segments:
    """masks: (Q, T, h, w) logits. candidates: query, label and class score of each pair."""
    queries, labels, scores = candidates
    used, place = torch.unique(queries, return_inverse=True)
    clips = read_masks(masks, used.tolist(), resizer)
    # 1e-6 as in the original: it keeps an empty mask from dividing by zero.
    qualities = [clip.prob_sum / (clip.area + 1e-6) for clip in clips]
    scores = scores * torch.tensor(qualities, dtype=torch.float32, device=scores.device)[place]
    kept = (scores > threshold).nonzero().flatten()
    kept = kept[scores[kept].argsort(descending=True, stable=True)]
    if mask_nms_threshold is not None:
        height, width = resizer.content_grid
        inside = (masks[:, :, :height, :width] > 0)[queries[kept]]
        kept = kept[suppress_overlaps(inside, scores[kept], mask_nms_threshold)]
    return Segments(
        resizer.target_size,
        torch.arange(1, len(kept) + 1, device=masks.device),
        labels[kept],
        scores[kept],
        rles=tuple(clips[index].rles for index in place[kept].tolist()),
        info={"queries": queries[kept]},
    )
