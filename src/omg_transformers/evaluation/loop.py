"""The one loop model x head x samples -> metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import distributed

from omg_transformers.data import EvalTransform
from omg_transformers.data.mixture import SourceSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor

    from omg_transformers.data import Batch, SampleSource
    from omg_transformers.model import OMGSegModel
    from omg_transformers.plugins import TaskHead
    from omg_transformers.plugins.contract import Metric
    from omg_transformers.structures import Sample


@dataclass(frozen=True)
class EvaluationSettings:
    """Figures of one head on the first `num_samples` of a held-out source, resized by the two sides."""

    task: str
    source: SourceSettings
    num_samples: int = 20
    shortest_side: int | None = None
    longest_side: int | None = None

    def samples(self, source: SampleSource, rank: int = 0, world_size: int = 1) -> Iterator[Sample]:
        """The share of one process, decoded and resized."""
        transform = EvalTransform(shortest_side=self.shortest_side, longest_side=self.longest_side)
        numbers = range(rank, min(self.num_samples, source.num_samples or self.num_samples), world_size)
        return (transform(source.sample(number)) for number in numbers)


class Collate(Protocol):
    """Makes a batch of transformed samples: `functools.partial(collate, task=...)`."""

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """One batch."""


def evaluate(
    model: OMGSegModel,
    head: TaskHead,
    samples: Iterable[Sample],
    *,
    collate: Collate,
    class_embeds: Tensor | None,
    num_classes: int,
    **options: Any,
) -> dict[str, float]:
    """The head's figures over samples that a transform has decoded, each at the size of its annotation.

    Every process passes its own share of the samples; all get the figures over all of them. options: of `postprocess`.
    Raises ValueError for heads that are asked by prompts: which prompts to give is not theirs to choose.
    """
    if head.spec.query_type != "learned":
        raise ValueError(
            f"head {head.spec.name!r} answers {head.spec.query_type!r} queries: evaluate it with prompts of your choice"
        )
    was_training = model.training
    model.eval()
    try:
        metric = _count(model, head, samples, collate, class_embeds, num_classes, options)
    finally:
        model.train(was_training)
    return _merge(metric).compute()


@torch.no_grad()
def _count(
    model: OMGSegModel,
    head: TaskHead,
    samples: Iterable[Sample],
    collate: Collate,
    class_embeds: Tensor | None,
    num_classes: int,
    options: dict[str, Any],
) -> Metric:
    device = next(model.parameters()).device
    names = class_embeds.to(device) if class_embeds is not None and head.spec.has_classes else None
    metric = head.metric(num_classes=num_classes)
    for sample in samples:
        # One at a time: the answer is wanted at the sample's own size.
        batch = collate([sample])
        output = model(batch["pixel_values"].to(device), batch["pixel_mask"].to(device), names)
        annotation = sample.annotation
        (prediction,) = head.postprocess(
            output.to_query_output(), sizes=[annotation.size], is_thing=annotation.is_thing, **options
        )
        metric.update(prediction, annotation)
    return metric


def _merge(metric: Metric) -> Metric:
    if not (distributed.is_available() and distributed.is_initialized()):
        return metric
    shares: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(shares, metric)
    merged: Metric = shares[0]
    for share in shares[1:]:
        merged.merge(share)
    return merged
