"""From batches to losses: what every head asks about a step's samples, and how good the model's answers are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.training.normalisers import Normalisers, count_targets
from omg_transformers.training.questions import make_independent_questions, move_question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from accelerate import Accelerator
    from torch import Tensor

    from omg_transformers.data import Batch
    from omg_transformers.labels import Vocabulary
    from omg_transformers.plugins import TaskHead
    from omg_transformers.structures import QueryOutput
    from omg_transformers.training.loss import SegmentationLoss
    from omg_transformers.training.questions import Question


@dataclass(slots=True)
class Lesson:
    """One batch with its questions. normalisers: per head, of the whole step. seed: for chance inside the model.

    suspects: ids of samples for which the model gave numbers that are not finite, once it was asked.
    """

    batch: Batch
    questions: dict[str, list[Question]]
    normalisers: dict[str, Normalisers]
    generators: list[torch.Generator]
    seed: int
    suspects: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Teacher:
    """Asks the heads of every batch and judges the answers.

    answers: `Answers` around the model, as prepared for distributed training. tasks: per part of the mix its heads, the
    first with weight 1, the others with theirs in `alongside`. with_classes, correction_share: see `make_question`.
    """

    accelerator: Accelerator
    answers: Any
    criterion: SegmentationLoss
    vocabulary: Vocabulary
    heads: Mapping[str, TaskHead]
    tasks: Mapping[str, tuple[str, ...]]
    alongside: Mapping[str, float] = field(default_factory=dict)
    with_classes: bool = False
    correction_share: float = 0.0
    seed: int = 0

    def prepare(self, batches: Sequence[Batch], step: int) -> list[Lesson]:
        """The questions of all batches of a step. All processes must call it: they count what they ask together.

        All chance comes from the step's number and the samples' seeds: it is the same after a resume, and for any
        number of processes and batches per step (but for dropout and the like inside the model).
        """
        lessons = [self._lesson(batch, step, place) for place, batch in enumerate(batches)]
        for name in lessons[0].questions:
            counts = [self._count(question) for lesson in lessons for question in lesson.questions[name]]
            total = torch.stack(counts).sum(0).to(self.accelerator.device)
            shared = Normalisers.shared(total, self.criterion.settings)
            for lesson in lessons:
                lesson.normalisers[name] = shared
        return lessons

    def losses(self, lesson: Lesson) -> dict[str, Tensor]:
        """The weighted sum of all heads' losses, `loss`, and its parts, "head/part"; NaN if an answer is not finite."""
        device, batch = self.accelerator.device, lesson.batch
        asked = [(name, move_question(q, device)) for name, questions in lesson.questions.items() for q in questions]
        torch.manual_seed(lesson.seed)
        with self.accelerator.autocast():
            answers = self.answers(
                batch["pixel_values"].to(device),
                batch["pixel_mask"].to(device),
                [question.inputs for _, question in asked],
                [question.clips for _, question in asked],
            )
        lesson.suspects = _suspects(batch["sample_ids"], [question for _, question in asked], answers)
        if lesson.suspects:  # there is nothing to match; NaN tells every process to leave the step out
            broken = torch.stack([layer.mask_logits.sum() for layers in answers for layer in layers]).sum() * torch.nan
            return {"loss": broken, **{f"{name}/total": broken.detach() for name in lesson.questions}}
        total, losses = torch.zeros((), device=device), dict[str, torch.Tensor]()
        for (name, question), layers in zip(asked, answers, strict=True):
            found = self.criterion(
                layers,
                question.targets,
                is_matched=question.is_matched,
                generator=[lesson.generators[clip] for clip in _clips(question, batch)],
                normalisers=lesson.normalisers[name],
            )
            total = total + (1.0 if name == next(iter(lesson.questions)) else self.alongside[name]) * found["total"]
            for part, value in found.items():
                if not part.startswith("layer_"):
                    key = f"{name}/{part}"
                    losses[key] = losses.get(key, 0.0) + value.detach()
        return {"loss": total, **losses}

    def _lesson(self, batch: Batch, step: int, place: int) -> Lesson:
        space = batch["label_space"]
        class_embeds = None if space.is_class_agnostic else self.vocabulary.class_embeds(space)
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seeds"]]
        of_step = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        questions = {
            name: make_independent_questions(
                self.heads[name],
                batch["annotations"],
                class_embeds=class_embeds,
                size=(batch["pixel_values"].shape[-2], batch["pixel_values"].shape[-1]),
                generators=generators,
                with_classes=self.with_classes,
                # The same on all processes and in all parts of a step.
                asks_again=float(torch.rand((), generator=of_step)) < self.correction_share,
            )
            for name in self.tasks[batch["part"]]
        }
        seed = ((self.seed * 1_000_003 + step) * 1_024 + place) * 4_096 + self.accelerator.process_index
        return Lesson(batch, questions, {}, generators, seed)

    def _count(self, question: Question) -> Tensor:
        config = self.accelerator.unwrap_model(self.answers).model.config
        asked = config.num_queries if question.is_matched else len(question.targets[0].labels)
        return count_targets(
            question.targets, num_queries=asked, is_matched=question.is_matched, settings=self.criterion.settings
        )


def _clips(question: Question, batch: Batch) -> Sequence[int]:
    return range(len(batch["sample_ids"])) if question.clips is None else question.clips


def _suspects(
    sample_ids: Sequence[str], questions: Sequence[Question], answers: Sequence[list[QueryOutput]]
) -> list[str]:
    """The ids of samples with an answer that is not finite."""
    bad: set[int] = set()
    for question, layers in zip(questions, answers, strict=True):
        rows = (~_finite_samples(layers)).nonzero().flatten().tolist()
        bad |= {row if question.clips is None else question.clips[row] for row in rows}
    return [sample_ids[row] for row in sorted(bad)]


@torch.no_grad()
def _finite_samples(layers: Sequence[QueryOutput]) -> Tensor:
    """Whether a sample's predictions are all finite: (B,). A sum is NaN or infinite as soon as one of its parts is."""
    sums = []
    for layer in layers:
        values = [layer.mask_logits, layer.class_logits, layer.iou_logits]
        sums += [value.detach().flatten(1).sum(1, dtype=torch.float32) for value in values if value is not None]
    return torch.stack(sums).isfinite().all(0)
