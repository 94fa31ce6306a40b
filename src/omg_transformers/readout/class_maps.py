"""One class per pixel, things and stuff alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch

from omg_transformers.ops.masks import stack_rles, union_of_rles
from omg_transformers.ops.resize import MaskResizer, sum_dtype
from omg_transformers.ops.scores import class_probs
from omg_transformers.readout.scenes import draw_scene
from omg_transformers.structures import QueryTargets, Segments, check_sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.plugins.contract import HeadSpec
    from omg_transformers.structures import Annotation, QueryOutput

# Classes that are resized at once for one tile.
CLASSES_AT_ONCE = 16


class ClassMaps:
    """Each pixel takes the class with the largest sum over queries of class probability x mask probability."""

    spec: ClassVar[HeadSpec]

    def targets(self, annotation: Annotation) -> QueryTargets:
        """One target per class, sorted. A crowd has a class, so only void and class-less places are `unknown`."""
        frames, size = annotation.num_frames, annotation.size
        present = [segment for segment in annotation.segments if any(segment.masks)]
        classes = sorted({segment.category_id for segment in present if segment.category_id >= 0})
        masks = [
            union_of_rles([segment.masks for segment in present if segment.category_id == label], frames, size)
            for label in classes
        ]
        nameless = [segment.masks for segment in present if segment.category_id < 0]
        unknown = union_of_rles([annotation.void, *nameless], frames, size)
        stacked = torch.stack(masks) if masks else stack_rles([], frames, size)
        return QueryTargets(torch.tensor(classes, dtype=torch.long), stacked, unknown & ~stacked.any(0))

    def postprocess(
        self,
        output: QueryOutput,
        *,
        sizes: Sequence[tuple[int, int]],
        is_thing: Sequence[bool],
        threshold: float | None = None,
    ) -> list[Segments]:
        """One segment per class that occurs, id = class + 1, with its mean score.

        threshold: pixels whose best class score is below it become void; None: every pixel has a class.
        """
        output = output.detach()
        check_sizes(sizes, len(output))
        probs = class_probs(output.class_logits, len(is_thing))[..., :-1]
        return [
            _segment_classes(output.mask_logits[index], probs[index], MaskResizer.of(output, index, size), threshold)
            for index, size in enumerate(sizes)
        ]

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """Regions of random classes, one of them a crowd, one void."""
        labels = torch.randint(num_classes, (6,), generator=torch.Generator().manual_seed(seed)).tolist()
        return draw_scene(labels, num_classes=num_classes, size=size, seed=seed, is_clip=self.spec.is_video)


def _segment_classes(masks: Tensor, probs: Tensor, resizer: MaskResizer, threshold: float | None) -> Segments:
    """masks: (Q, T, h, w) logits. probs: (Q, K)."""
    id_map = torch.zeros((masks.shape[1], *resizer.target_size), dtype=torch.int32, device=masks.device)
    area, total = torch.zeros((2, probs.shape[1]), dtype=sum_dtype(masks.device), device=masks.device)
    for frame in range(masks.shape[1]):
        for row, rows in enumerate(resizer.row_bands):
            # Class scores only of the grid rows at hand: all classes x the whole grid may not fit into memory.
            strip = masks[:, frame, rows.grid].float().sigmoid()
            scores = (probs.T @ strip.flatten(1)).view(-1, *strip.shape[1:])
            for column, columns in enumerate(resizer.column_bands):
                winner = _best_class(scores[:, :, columns.grid], resizer, (row, column), threshold, (area, total))
                id_map[frame, rows.target, columns.target] = winner + 1
    present = area.nonzero().flatten()
    means = (total[present] / area[present]).clamp(0, 1).float()
    return Segments(resizer.target_size, present + 1, present, means, id_map=id_map, info={"areas": area[present]})


def _best_class(
    scores: Tensor, resizer: MaskResizer, tile: tuple[int, int], threshold: float | None, counts: tuple[Tensor, Tensor]
) -> Tensor | int:
    """The best class at each pixel of a tile, -1 for void; adds pixels and scores per class to `counts`.

    scores: (K, h, w), the grid under the tile.
    """
    area, total = counts
    low, high = resizer.patch_bounds(scores)
    # Resized scores are means of the grid's: a class that stays below another's least value wins nowhere in the tile.
    candidates = (high >= low.max()).nonzero().flatten()
    if len(candidates) == 1 and threshold is None:
        label = int(candidates)
        rows, columns = resizer.row_bands[tile[0]], resizer.column_bands[tile[1]]
        area[label] += (rows.stop - rows.start) * (columns.stop - columns.start)
        total[label] += resizer.sums(scores[candidates], *tile)[0]
        return label
    best, winner = _running_maximum(scores, candidates, resizer, tile)
    if threshold is not None:
        winner = winner.masked_fill(best < threshold, -1)
    flat = winner.flatten() + 1
    area += torch.bincount(flat, minlength=len(area) + 1)[1:]
    total += torch.bincount(flat, best.flatten().to(total.dtype), minlength=len(area) + 1)[1:]
    return winner


def _running_maximum(
    scores: Tensor, candidates: Tensor, resizer: MaskResizer, tile: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The largest resized score among the candidate classes and its class, the first of equals."""
    best = winner = None
    for labels in torch.split(candidates, CLASSES_AT_ONCE):
        value, place = resizer.expand(scores[labels], *tile).max(0)
        if best is None or winner is None:
            best, winner = value, labels[place]
        else:
            winner = torch.where(value > best, labels[place], winner)
            best = torch.maximum(value, best)
    if best is None or winner is None:
        raise ValueError("class_logits holds no finite score: check the model for NaN")
    return best, winner
