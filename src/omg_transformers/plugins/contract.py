"""The contract between the shared model and a plug-in: all that a plug-in author has to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from omg_transformers.structures import Annotation, AnnotationPart, Queries, QueryOutput, QueryTargets, Segments

API_VERSION = 1


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """What the core must know about a head before it runs it.

    query_type: name of the query encoder that asks for it: "learned", "prompt", or a plug-in's own.
    is_video: it needs clips. has_classes: False when class logits are ignored (prompts, followed objects).
    reads: what an annotation must tell, beyond outlines, for the head to learn from it and be judged by it.
    """

    name: str
    query_type: str = "learned"
    is_video: bool = False
    has_classes: bool = True
    reads: tuple[AnnotationPart, ...] = ()


class Metric(Protocol):
    """Accumulates over samples; `merge` makes it right over processes."""

    def update(self, prediction: Segments, annotation: Annotation, *, key: Hashable = None) -> None:
        """Count one sample. key: its name or number, for errors and for figures that depend on the samples' order."""

    def merge(self, other: Self) -> None:
        """Add what another process has counted."""

    def compute(self) -> dict[str, float]:
        """All figures by name, each in [0, 1], NaN where undefined; the first is the head's main figure."""


@runtime_checkable
class HasClassTable(Protocol):
    """Optional ability of a metric: its figures class by class."""

    def per_class(self) -> Mapping[str, NDArray[Any]]:
        """Columns by name, K values each, NaN where undefined; the first is the metric's main figure."""


@runtime_checkable
class TaskHead(Protocol):
    """Stateless adapter from decoder output to one task. Built with no arguments; holds no parameters."""

    api_version: ClassVar[int]
    spec: ClassVar[HeadSpec]

    def targets(self, annotation: Annotation) -> QueryTargets:
        """What the queries should have answered; crowds and void become `unknown`."""

    def postprocess(
        self, output: QueryOutput, *, sizes: Sequence[tuple[int, int]], is_thing: Sequence[bool], **options: Any
    ) -> list[Segments]:
        """One result per sample at its (height, width) in `sizes`. Options are the head's own keyword arguments."""

    def metric(self, *, num_classes: int) -> Metric:
        """An empty metric over `num_classes` classes."""

    def example_annotation(self, *, seed: int, size: tuple[int, int], num_classes: int) -> Annotation:
        """A small random scene that the head can represent exactly; lets the kit test any head."""


@runtime_checkable
class MakesQueryInputs(Protocol):
    """Optional ability of a head whose query type is not "learned": it asks its own questions in training."""

    def query_inputs(
        self, targets: Sequence[QueryTargets], *, size: tuple[int, int], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], list[QueryTargets]]:
        """Inputs for the query encoder, batched, in pixels of the padded input of `size`, and re-ordered targets.

        Query i of sample b answers target i of sample b: there is no matching. Every sample gets the same number, in
        every call: in training each clip is asked by itself, with chance of its own.
        """


@runtime_checkable
class CorrectsAnswers(Protocol):
    """Optional ability of a head that makes query inputs: it asks again in training, as a user who sees the answer."""

    def corrections(
        self,
        inputs: Mapping[str, Tensor],
        targets: Sequence[QueryTargets],
        output: QueryOutput,
        *,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """`inputs` with more said about the same targets, given the model's `output` for them."""


@runtime_checkable
class AsksPrompts(Protocol):
    """Optional ability of a head that is asked by prompts: the standard questions by which it is judged.

    prompt_kinds: their names, the usual one first, such as ("box", "click").
    """

    prompt_kinds: ClassVar[tuple[str, ...]]

    def evaluation_prompts(self, annotation: Annotation, *, kind: str) -> dict[str, Any]:
        """What a user would pass to the pipeline for this picture, in its own pixels, always the same.

        Prompt i asks for what the head's metric expects of prediction i. {} when there is nothing to ask: the model
        is not called, and the prediction is a `Segments` without segments.
        """


@runtime_checkable
class QueryEncoder(Protocol):
    """A query type with weights of its own: an `nn.Module`, built as `encoder(hidden_size=D, **options)`.

    The model builds it by name from `OMGSegConfig.query_encoders`, trains it and saves it in the same checkpoint.
    """

    def __call__(self, *, batch_size: int, content_sizes: Tensor, inputs: Mapping[str, Any]) -> Queries:
        """Queries for a batch. content_sizes: (B, 2) float, (height, width) of each picture in input pixels.

        inputs: what the caller passed to `OMGSegModel.forward(query_inputs=...)`, in input pixels.
        """
