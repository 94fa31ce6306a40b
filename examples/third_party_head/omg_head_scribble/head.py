"""The task "scribble": the mask of the object that each line was drawn over; classes play no part."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from omg_transformers.metrics.prompt import MeanPromptIoU
from omg_transformers.ops.masks import decode_rles, encode_masks
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.plugins import API_VERSION, HeadSpec
from omg_transformers.structures import Annotation, QueryTargets, Segment, Segments, check_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.structures import QueryOutput


class ScribbleHead:
    """One mask per scribble, in the order of the scribbles."""

    api_version: ClassVar[int] = API_VERSION
    spec: ClassVar[HeadSpec] = HeadSpec("scribble", query_type="scribble", has_classes=False)
    num_scribbles: ClassVar[int] = 8
    num_points: ClassVar[int] = 6

    def targets(self, annotation: Annotation) -> QueryTargets:
        """One target per segment; crowds and void are `unknown`."""
        masks, unknown = [], decode_rles(annotation.void, annotation.size)
        for segment in annotation.segments:
            mask = decode_rles(segment.masks, annotation.size)
            if segment.is_crowd:
                unknown |= mask
            elif mask.any():
                masks.append(mask)
        stacked = torch.stack(masks) if masks else unknown.new_zeros((0, *unknown.shape))
        labels = torch.full((len(masks),), -1)  # the mask counts, the class does not
        return QueryTargets(labels, stacked, unknown)

    def query_inputs(
        self,
        targets: Sequence[QueryTargets],
        *,
        size: tuple[int, int],
        generator: torch.Generator,
    ) -> tuple[dict[str, Tensor], list[QueryTargets]]:
        """`num_scribbles` lines per sample, (B, N, K, 2): random walks inside targets drawn at random.

        A sample without targets gets lines in the middle of the picture, and targets of which nothing is known.
        """
        middle = torch.tensor([size[1] / 2, size[0] / 2])
        lines, answers = [], []
        for target in targets:
            if len(target.labels):
                chosen = torch.randint(len(target.labels), (self.num_scribbles,), generator=generator)
                answer = QueryTargets(target.labels[chosen], target.masks[chosen], target.unknown)
                lines.append(torch.stack([_walk(mask, self.num_points, generator) for mask in answer.masks]))
            else:
                shape = target.masks.shape[1:]
                labels = target.labels.new_full((self.num_scribbles,), -1)
                masks = target.masks.new_zeros((self.num_scribbles, *shape))
                answer = QueryTargets(labels, masks, target.masks.new_ones(shape))
                lines.append(middle.expand(self.num_scribbles, self.num_points, 2))
            answers.append(answer)
        return {"scribble_points": torch.stack(lines)}, answers

    def postprocess(
        self,
        output: QueryOutput,
        *,
        sizes: Sequence[tuple[int, int]],
        is_thing: Sequence[bool],  # noqa: ARG002 part of the contract; scribbles have no classes
        mask_threshold: float = 0.0,
    ) -> list[Segments]:
        """One segment per scribble (label -1), also where the mask is empty. mask_threshold: a logit."""
        output = output.detach()
        check_sizes(sizes, len(output))
        results = []
        for index, (height, width) in enumerate(sizes):
            resizer = MaskResizer.of(output, index, (height, width))
            # One query at a time: all of them at the size of a large picture may not fit into memory.
            rles = tuple(encode_masks(resizer.resize(masks) > mask_threshold) for masks in output.mask_logits[index])
            ids = torch.arange(1, len(rles) + 1)
            scores = _scores(output, index)
            results.append(Segments((height, width), ids, torch.full_like(ids, -1), scores, rles=rles))
        return results

    def metric(self, *, num_classes: int) -> MeanPromptIoU:  # noqa: ARG002 part of the contract
        """Mean IoU over scribbles."""
        return MeanPromptIoU()

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """Four discs that may overlap."""
        generator = torch.Generator().manual_seed(seed)
        height, width = size
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        segments = []
        for number in range(4):
            y, x, share = torch.rand(3, generator=generator).tolist()
            radius = 1 + (0.1 + 0.2 * share) * min(size)
            disc = (rows + 0.5 - y * height) ** 2 + (columns + 0.5 - x * width) ** 2 <= radius**2
            segments.append(Segment(number % num_classes, encode_masks(disc[None]), track_id=number + 1))
        return Annotation(size, tuple(label % 2 == 0 for label in range(num_classes)), tuple(segments))


def _walk(masks: Tensor, num_points: int, generator: torch.Generator) -> Tensor:
    """A random walk of pixel centres inside the first frame that holds the object. masks: (T, H, W). (K, 2), (x, y)."""
    mask = masks[int(masks.flatten(1).any(1).to(torch.uint8).argmax())].cpu()
    places = mask.nonzero()
    here = places[int(torch.randint(len(places), (), generator=generator))]
    line = [here]
    reach = max(1.0, float(len(places)) ** 0.5 / 3)
    limit = torch.tensor(mask.shape) - 1
    while len(line) < num_points:
        step = (torch.randn(2, generator=generator) * reach).round().long()
        there = (here + step).clamp(min=0).minimum(limit)
        if bool(mask[there[0], there[1]]):
            here = there
        line.append(here)  # a step out of the object is not taken: the line stays where it is
    return torch.stack(line).flip(-1) + 0.5


def _scores(output: QueryOutput, index: int) -> Tensor:
    if output.iou_logits is None:
        return torch.ones(output.mask_logits.shape[1])
    return output.iou_logits[index].float().sigmoid().cpu()
