"""The one loop model x head x samples -> metric."""

from __future__ import annotations

import heapq
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import gather_object
from tqdm import tqdm

from omg_transformers.data.mixture import SourceSettings
from omg_transformers.data.sources import SampleError
from omg_transformers.formats import segments_from_dict, segments_to_dict
from omg_transformers.formats.shards import ShardWriter, read_shards
from omg_transformers.inference.bulk import prepare_together
from omg_transformers.inference.processes import join_processes
from omg_transformers.metrics.confusion import PixelConfusion
from omg_transformers.plugins.contract import AsksPrompts, HasClassTable
from omg_transformers.structures import Segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from omg_transformers.data import SampleSource
    from omg_transformers.evaluation.segmenters import Segmenter
    from omg_transformers.plugins import TaskHead
    from omg_transformers.structures import Sample


@dataclass(frozen=True)
class EvaluationSettings:
    """Figures of one head on the first `num_samples` of a held-out source. prompts: their kind, for heads asked so."""

    task: str
    source: SourceSettings
    num_samples: int = 20
    prompts: str | None = None


@dataclass(frozen=True, slots=True)
class SampleFigure:
    """The head's main figure on one sample alone, NaN where undefined. number: its place in the source."""

    number: int
    sample_id: str
    figure: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `evaluate` found. class_columns: by name, K values each; empty for metrics without classes.

    samples: in the source's order. worst: the samples of lowest figure, lowest first, with what was answered.
    confusion: see `PixelConfusion`, None for heads without classes. skipped: why samples were left out.
    """

    figures: dict[str, float]
    class_columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    samples: tuple[SampleFigure, ...] = ()
    worst: tuple[tuple[SampleFigure, Segments], ...] = ()
    confusion: NDArray[np.int64] | None = None
    skipped: tuple[str, ...] = ()


def evaluate(
    segmenter: Segmenter,
    head: TaskHead,
    source: SampleSource,
    *,
    limit: int | None = None,
    prompts: str | None = None,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    num_worst: int = 0,
    journal: Path | None = None,
    about: Mapping[str, Any] | None = None,
    show_progress: bool = False,
) -> Evaluation:
    """The head's figures over the samples of a source, each answered and judged at the size of its annotation.

    On several processes each sample is answered by one of them, and all get the figures over all samples.
    limit: only the first samples. prompts: which of the head's `prompt_kinds`, by default the first. options: of the
    head. num_worst: how many of the worst answers to keep. journal: a folder for the answers as they come; what it has
    is not asked again, so a killed run goes on with the same call, on any number of processes. about: what the answers
    depend on, JSON; a folder with answers to something else is refused.
    Raises ValueError for a head that needs prompts and has no standard ones, and when no sample could be used.
    """
    kind = _prompt_kind(head, prompts)
    numbers = _numbers(source, limit)
    state = join_processes()
    tally = _Tally(head, len(source.label_space), num_worst)
    known = None if journal is None else prepare_together(journal, dict(about or {}), state)
    if journal is not None and state.is_main_process:
        tally.count_known(source, numbers, read_shards(journal))
    pending = [number for number in numbers if known is None or str(number) not in known]
    own = pending[state.process_index :: state.num_processes]
    hidden = not show_progress or not state.is_main_process
    shard = nullcontext() if journal is None else ShardWriter(journal, state.process_index)
    with shard as writer, tqdm(total=len(own), unit="sample", desc=head.spec.name, disable=hidden) as bar:
        for batch in _batches(source, own, batch_size, tally.skipped):
            found = _answer(segmenter, head, batch, kind, options or {})
            for (number, sample), segments in zip(batch, found, strict=True):
                tally.count(number, sample, segments)
                if writer is not None:
                    writer.add(str(number), segments)
            bar.update(len(batch))
    total, *others = gather_object([tally]) if state.num_processes > 1 else [tally]
    for other in others:
        total.merge(other)
    return total.result()


class _Tally:
    """Everything that is counted over samples; merges over processes and travels without dense masks."""

    def __init__(self, head: TaskHead, num_classes: int, num_worst: int) -> None:
        self.make_metric = head.metric
        self.num_classes, self.num_worst = num_classes, num_worst
        self.metric = head.metric(num_classes=num_classes)
        self.confusion = PixelConfusion(num_classes) if head.spec.has_classes else None
        self.samples: list[SampleFigure] = []
        self.worst: list[tuple[float, int, SampleFigure, dict[str, Any]]] = []
        self.skipped: list[str] = []

    def count(self, number: int, sample: Sample, segments: Segments) -> None:
        """Count one answer, alone first: its own figure is needed, and merging is what the metric does best."""
        alone = self.make_metric(num_classes=self.num_classes)
        try:
            alone.update(segments, sample.annotation, key=(number, sample.sample_id))
        except (ValueError, TypeError) as error:
            error.add_note(f"(sample {sample.sample_id})")
            raise
        self.metric.merge(alone)
        if self.confusion is not None:
            self.confusion.update(segments, sample.annotation)
        figure = SampleFigure(number, sample.sample_id, next(iter(alone.compute().values())))
        self.samples.append(figure)
        if np.isnan(figure.figure):  # the metric may have found nothing to judge, and say why
            self.skipped += getattr(alone, "skipped", ())
        if self.num_worst and not np.isnan(figure.figure):
            heapq.heappush(self.worst, (-figure.figure, -number, figure, segments_to_dict(segments)))
            self._drop_best()

    def count_known(self, source: SampleSource, numbers: range, results: Iterable[tuple[str, Segments]]) -> None:
        """Count the answers of earlier starts."""
        for key, segments in results:
            if int(key) in numbers:
                self.count(int(key), source.sample(int(key)), segments)

    def merge(self, other: _Tally) -> None:
        self.metric.merge(other.metric)
        if self.confusion is not None and other.confusion is not None:
            self.confusion.merge(other.confusion)
        self.samples += other.samples
        self.skipped += other.skipped
        for entry in other.worst:
            heapq.heappush(self.worst, entry)
        self._drop_best()

    def _drop_best(self) -> None:
        while len(self.worst) > self.num_worst:
            heapq.heappop(self.worst)

    def result(self) -> Evaluation:
        if not self.samples:
            why = f": {self.skipped[0]}" if self.skipped else ", the source is empty"
            raise ValueError(f"no sample could be used{why}")
        return Evaluation(
            self.metric.compute(),
            dict(self.metric.per_class()) if isinstance(self.metric, HasClassTable) else {},
            tuple(sorted(self.samples, key=lambda sample: sample.number)),
            tuple((figure, segments_from_dict(answer)) for _, _, figure, answer in sorted(self.worst, reverse=True)),
            None if self.confusion is None else self.confusion.matrix,
            tuple(self.skipped),
        )


def _prompt_kind(head: TaskHead, wanted: str | None) -> str | None:
    name, spec = head.spec.name, head.spec
    if spec.query_type == "learned":
        if wanted is not None:
            raise ValueError(f"prompts is {wanted!r}: task {name!r} is asked without prompts, leave it out")
        return None
    if not isinstance(head, AsksPrompts):
        raise ValueError(
            f"task {name!r} answers {spec.query_type!r} queries and has no standard prompts: give its head "
            "`prompt_kinds` and `evaluation_prompts` (see AsksPrompts in the plug-in contract)"
        )
    if wanted is not None and wanted not in head.prompt_kinds:
        raise ValueError(f"prompts is {wanted!r}: task {name!r} is judged by {', '.join(head.prompt_kinds)}")
    return wanted or head.prompt_kinds[0]


def _numbers(source: SampleSource, limit: int | None) -> range:
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}: give at least 1 sample, or None for all")
    if source.num_samples is None and limit is None:
        raise ValueError("the source is endless: give a limit")
    counts = [count for count in (source.num_samples, limit) if count is not None]
    return range(min(counts))


def _batches(
    source: SampleSource, numbers: Iterable[int], batch_size: int, skipped: list[str]
) -> Iterator[list[tuple[int, Sample]]]:
    """Samples with their numbers; those that cannot be read are named in `skipped`."""
    pending = iter(numbers)
    while chunk := list(islice(pending, batch_size)):
        batch = []
        for number in chunk:
            try:
                batch.append((number, source.sample(number)))
            except SampleError as error:
                skipped.append(str(error))
        if batch:
            yield batch


def _answer(
    segmenter: Segmenter,
    head: TaskHead,
    batch: Sequence[tuple[int, Sample]],
    kind: str | None,
    options: Mapping[str, Any],
) -> list[Segments]:
    """One result per sample. Who is asked by prompts is not asked where there is nothing to ask for."""
    prompts: list[Mapping[str, Any]] = [{} for _ in batch]
    if kind is not None and isinstance(head, AsksPrompts):
        prompts = [head.evaluation_prompts(sample.annotation, kind=kind) for _, sample in batch]
    asked = [index for index, prompt in enumerate(prompts) if prompt or kind is None]
    samples = [batch[index][1] for index in asked]
    try:
        found = segmenter.segment(samples, head, [prompts[index] for index in asked], options) if asked else []
    except (ValueError, RuntimeError) as error:
        error.add_note(f"(sample {', '.join(sample.sample_id for sample in samples)})")
        raise
    answers = dict(zip(asked, found, strict=True))
    return [answers.get(index, _nothing(sample)) for index, (_, sample) in enumerate(batch)]


def _nothing(sample: Sample) -> Segments:
    none = torch.zeros(0, dtype=torch.int64)
    return Segments(sample.annotation.size, none, none, torch.zeros(0), rles=())
