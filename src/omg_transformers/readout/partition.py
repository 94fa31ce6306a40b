"""Every pixel belongs to one thing, to one kind of stuff, or to nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from omg_transformers.ops.masks import stack_rles, union_of_rles, void_and_crowds
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.ops.scores import class_probs, suppress_overlaps
from omg_transformers.readout.contest import Contest
from omg_transformers.readout.scenes import draw_scene, thing_flags
from omg_transformers.structures import QueryTargets, Segments, check_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.plugins.contract import HeadSpec
    from omg_transformers.structures import Annotation, QueryOutput, Segment


class Partition:
    """Queries contest each pixel with class score x mask probability; covered queries are dropped (MaskFormer)."""

    spec: ClassVar[HeadSpec]

    def targets(self, annotation: Annotation) -> QueryTargets:
        """One target per thing in the annotation's order, then one per stuff class, sorted by class."""
        frames, size = annotation.num_frames, annotation.size
        known = [segment for segment in annotation.segments if any(segment.masks) and not segment.is_crowd]
        things = [segment for segment in known if _is_thing(segment, annotation)]
        stuff = [segment for segment in known if not _is_thing(segment, annotation)]
        classes = sorted({segment.category_id for segment in stuff})
        regions = [
            union_of_rles([segment.masks for segment in stuff if segment.category_id == label], frames, size)
            for label in classes
        ]
        masks = torch.cat([stack_rles([thing.masks for thing in things], frames, size), *(r[None] for r in regions)])
        unknown = void_and_crowds(annotation) & ~masks.any(0)
        labels = [thing.category_id for thing in things] + classes
        return QueryTargets(torch.tensor(labels, dtype=torch.long), masks, unknown)

    def postprocess(
        self,
        output: QueryOutput,
        *,
        sizes: Sequence[tuple[int, int]],
        is_thing: Sequence[bool],
        threshold: float = 0.0,
        overlap_threshold: float = 0.8,
        filter_low_score: bool = True,
        mask_nms_threshold: float | None = None,
    ) -> list[Segments]:
        """Segments that do not overlap; a clip's segments keep their ids through all frames.

        threshold: least class score of a query. overlap_threshold: a query that wins less than this share of its own
        mask is dropped. filter_low_score: segments keep only pixels inside their query's own mask.
        mask_nms_threshold: queries that overlap a better one by more than this IoU are dropped before the contest.
        """
        output = output.detach()
        check_sizes(sizes, len(output))
        probs = class_probs(output.class_logits, len(is_thing))
        results = []
        for index, size in enumerate(sizes):
            masks, resizer = output.mask_logits[index], MaskResizer.of(output, index, size)
            scores, labels = probs[index].max(-1)
            kept = ((labels < len(is_thing)) & (scores > threshold)).nonzero().flatten()
            if mask_nms_threshold is not None:
                kept = kept[_distinct(masks, kept, scores, resizer, mask_nms_threshold)]
            contest = Contest(masks, kept, scores[kept], resizer)
            contest.run()
            results.append(_segments(contest, labels[kept], is_thing, overlap_threshold, filter_low_score))
        return results

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """Things of random classes, each stuff class at most once, one crowd and one void region."""
        flags = thing_flags(num_classes)
        things = [label for label, flag in enumerate(flags) if flag]
        stuff = [label for label, flag in enumerate(flags) if not flag]
        generator = torch.Generator().manual_seed(seed)
        picks = torch.randint(len(things), (4,), generator=generator).tolist()
        labels = [things[pick] for pick in picks] + stuff[:3]
        return draw_scene(labels, num_classes=num_classes, size=size, seed=seed, is_clip=self.spec.is_video)


def _is_thing(segment: Segment, annotation: Annotation) -> bool:
    return segment.category_id < 0 or annotation.is_thing[segment.category_id]


def _distinct(masks: Tensor, kept: Tensor, scores: Tensor, resizer: MaskResizer, max_iou: float) -> Tensor:
    """Places in `kept` of the queries that overlap no better one, judged on the mask grid."""
    height, width = resizer.content_grid
    inside = (masks[:, :, :height, :width] >= 0)[kept]
    return suppress_overlaps(inside, scores[kept], max_iou)


def _segments(
    contest: Contest, labels: Tensor, is_thing: Sequence[bool], overlap_threshold: float, filter_low_score: bool
) -> Segments:
    """Drop the queries that lost too much, number the others, join stuff of one class."""
    areas = contest.believed if filter_low_score else contest.won
    # On the CPU in float64, as Python divides: not every device has it.
    share = contest.won.cpu().double() / contest.own.cpu()
    survives = (contest.own > 0).cpu() & (areas > 0).cpu() & (share >= overlap_threshold)
    ids: list[int] = [0] * len(labels)
    of_stuff: dict[int, int] = {}
    rows: list[tuple[int, float, int, int]] = []
    for place in survives.nonzero().flatten().tolist():
        label, score, area = int(labels[place]), float(contest.scores[place]), int(areas[place])
        if label in of_stuff:
            number = of_stuff[label]
            _, other_score, other_area, _ = rows[number - 1]
            rows[number - 1] = (label, max(score, other_score), area + other_area, -1)
        else:
            # Stuff belongs to its class, whichever queries saw it.
            rows.append((label, score, area, int(contest.kept[place]) if is_thing[label] else -1))
            number = len(rows)
            if not is_thing[label]:
                of_stuff[label] = number
        ids[place] = number
    id_map = contest.id_map(ids, only_believed=filter_low_score)
    device = id_map.device
    return Segments(
        contest.resizer.target_size,
        torch.arange(1, len(rows) + 1, device=device),
        torch.tensor([row[0] for row in rows], dtype=torch.long, device=device),
        torch.tensor([row[1] for row in rows], dtype=torch.float32, device=device),
        id_map=id_map,
        info={
            "areas": torch.tensor([row[2] for row in rows], dtype=torch.long, device=device),
            "queries": torch.tensor([row[3] for row in rows], dtype=torch.long, device=device),
        },
    )
