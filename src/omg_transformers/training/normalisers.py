"""What the sums of a loss are divided by: counted over a whole step, however it is split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

from omg_transformers.training.mask_targets import is_open

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.structures import QueryTargets
    from omg_transformers.training.loss_settings import LossSettings


@dataclass(frozen=True, slots=True)
class Normalisers:
    """Divisors of the mask losses, the class loss and the quality loss: scalars, above 0."""

    masks: Tensor
    classes: Tensor
    quality: Tensor

    @classmethod
    def shared(cls, counts: Tensor, settings: LossSettings) -> Normalisers:
        """From counts (3,) of `count`, summed over the parts of a step. All processes must call it.

        A process gets its share of the total, at least 1: gradients are averaged over processes afterwards, so that N
        of them do what one does with the whole batch.
        """
        total, num_processes = counts.float(), 1
        if distributed.is_available() and distributed.is_initialized():
            total = total.clone()
            distributed.all_reduce(total)
            num_processes = distributed.get_world_size()
        masks, classes, quality = (total.clamp(min=1.0) / num_processes).unbind()
        return cls(masks, classes, classes if settings.follow_original else quality)


def count(
    num_pairs: float,
    num_labelled: Tensor | float,
    *,
    batch: int,
    num_queries: int,
    is_matched: bool,
    settings: LossSettings,
    num_unjudged: tuple[int, int] = (0, 0),
) -> Tensor:
    """Matched masks, weights of the class loss and of the quality loss, as (3,) for `Normalisers.shared`.

    num_labelled: how many of the pairs have a class. num_unjudged: of `count_unjudged`.
    """
    unmatched, unmatched_quality = (
        settings.no_object_weight * (batch * num_queries - num_pairs - unjudged) for unjudged in num_unjudged
    )
    num_masks = num_pairs
    if settings.follow_original:
        # The original counts label -1 as class 0, and prompts of one picture only (OFFICIAL: defects 9 and 11).
        num_labelled = num_pairs
        num_masks = num_masks if is_matched else num_masks / batch
    labelled = torch.as_tensor(num_labelled, dtype=torch.float32)
    return torch.stack(
        [labelled.new_tensor(num_masks), labelled + unmatched, labelled.new_tensor(num_pairs + unmatched_quality)]
    )


def count_targets(
    targets: Sequence[QueryTargets], *, num_queries: int, is_matched: bool, settings: LossSettings
) -> Tensor:
    """The same before anything is matched. Of more segments than queries, the matched are taken for an even choice."""
    pairs, labelled = 0, 0.0
    certain, sizes = [target.is_certain for target in targets], [len(target.labels) for target in targets]
    for target in targets:
        found = len(target.labels)
        matched = min(found, num_queries) if is_matched else found
        pairs += matched
        labelled += float((target.labels >= 0).sum()) * matched / max(found, 1)
    return count(
        pairs,
        labelled,
        batch=len(targets),
        num_queries=num_queries,
        is_matched=is_matched,
        settings=settings,
        num_unjudged=count_unjudged(certain, sizes, num_queries),
    )


def count_unjudged(certain: Sequence[Tensor | None], num_segments: Sequence[int], num_queries: int) -> tuple[int, int]:
    """Queries without a segment of which the class loss and the quality loss say nothing, as more may be there.

    certain: per sample its `is_certain`. The class loss is silent where no class is certain, the other one where any
    class is not.
    """
    spare = [max(0, num_queries - found) for found in num_segments]
    of_open = [
        (flags, left) for flags, left in zip(certain, spare, strict=True) if flags is not None and is_open(flags)
    ]
    return sum(left for flags, left in of_open if not bool(flags.any())), sum(left for _, left in of_open)
