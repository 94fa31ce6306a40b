"""What a head asks about a batch in training, and the module that answers several heads from one set of features."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omg_transformers.plugins.contract import CorrectsAnswers, MakesQueryInputs
from omg_transformers.structures import NO_PROMPT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from omg_transformers.model import OMGSegModel
    from omg_transformers.plugins.contract import TaskHead
    from omg_transformers.structures import Annotation, QueryOutput, QueryTargets


_PROMPTS = {"input_points", "input_labels", "input_boxes", "input_masks"}


@dataclass(frozen=True, slots=True)
class Question:
    """One head's question about a batch: arguments for the model, and what the answer is compared with.

    is_matched: queries are matched to targets; False: query i answers target i. `follow_up` among the inputs makes of
    the first answer the query inputs of a second question, which is the one that counts.
    """

    inputs: dict[str, Any]
    targets: list[QueryTargets]
    is_matched: bool


def make_question(
    head: TaskHead,
    annotations: Sequence[Annotation],
    *,
    class_embeds: Tensor | None,
    size: tuple[int, int],
    generator: torch.Generator,
    sample_generators: Sequence[torch.Generator] | None = None,
    with_classes: bool = False,
    correction_share: float = 0.0,
) -> Question:
    """What `head` asks about clips whose annotations are at the padded input `size`.

    sample_generators: one per clip; questions then do not depend on what else is in the batch, and `generator` decides
    only what holds for a whole step. with_classes: teach the names of segments also through a head that does not use
    them. correction_share: how often a head that can correct answers asks a second time.
    Raises TypeError for a head whose query type is not "learned" and that cannot make query inputs.
    """
    targets = [head.targets(annotation) for annotation in annotations]
    inputs: dict[str, Any] = {"query_type": head.spec.query_type}
    if head.spec.has_classes or with_classes:
        inputs["class_embeds"] = class_embeds
    if isinstance(head, MakesQueryInputs):
        groups = [targets] if sample_generators is None else [[target] for target in targets]
        generators = [generator] if sample_generators is None else sample_generators
        asked = [
            _Asked(*head.query_inputs(group, size=size, generator=own), own)
            for group, own in zip(groups, generators, strict=True)
        ]
        inputs["query_inputs"] = join_query_inputs([part.inputs for part in asked])
        asks_again = correction_share > 0 and float(torch.rand((), generator=generator)) < correction_share
        if asks_again and isinstance(head, CorrectsAnswers):
            inputs["follow_up"] = functools.partial(_correct, head, asked)
        return Question(inputs, [target for part in asked for target in part.targets], is_matched=False)
    if head.spec.query_type != "learned":
        raise TypeError(
            f"head {head.spec.name!r} asks {head.spec.query_type!r} queries but has no `query_inputs`: it cannot be "
            "trained; see omg_transformers.plugins.MakesQueryInputs"
        )
    return Question(inputs, targets, is_matched=True)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a head asked about some clips of a batch."""

    inputs: dict[str, Tensor]
    targets: list[QueryTargets]
    generator: torch.Generator


def _correct(head: CorrectsAnswers, asked: Sequence[_Asked], output: QueryOutput) -> dict[str, Tensor]:
    answers = [output] if len(asked) == 1 else [output.select(index) for index in range(len(output))]
    said = [
        head.corrections(part.inputs, part.targets, answer, generator=part.generator)
        for part, answer in zip(asked, answers, strict=True)
    ]
    device = output.mask_logits.device
    return {name: value.to(device) for name, value in join_query_inputs(said).items()}


def join_query_inputs(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Query inputs of several clips as one batch. Clips may be asked by different prompts: places stay empty.

    Raises ValueError for different numbers of questions, and for different inputs that are no prompts.
    """
    counts = sorted({value.shape[1] for part in parts for value in part.values()})
    if len(counts) > 1:
        raise ValueError(f"query_inputs asks {counts} questions about clips of one batch: it must be one number")
    if len({frozenset(part) for part in parts}) > 1:
        parts = [_with_labels(part) for part in parts]
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _joined(name, [part.get(name) for part in parts]) for name in names}


def _with_labels(part: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Points without labels are inside; beside clips without points that must be said."""
    strangers = sorted(set(part) - _PROMPTS)
    if strangers:
        raise ValueError(f"query_inputs gives {', '.join(strangers)} for some clips of a batch only: give it for all")
    if "input_points" not in part or "input_labels" in part:
        return part
    return {**part, "input_labels": torch.ones(part["input_points"].shape[:-1], dtype=torch.long)}


def _joined(name: str, values: Sequence[Tensor | None]) -> Tensor:
    given = next(value for value in values if value is not None)
    blank = 0.0 if name == "input_masks" else NO_PROMPT
    rows = [given.new_full((1, *given.shape[1:]), blank) if value is None else value for value in values]
    if name in ("input_points", "input_labels"):  # not everyone clicks equally often
        most = max(row.shape[2] for row in rows)
        rows = [torch.cat([r, r.new_full((*r.shape[:2], most - r.shape[2], *r.shape[3:]), blank)], 2) for r in rows]
    return torch.cat(rows)


def move_question(question: Question, device: torch.device) -> Question:
    """The same question with the model's inputs on `device`; the loss moves the targets itself."""
    inputs = {name: _to(value, device) for name, value in question.inputs.items()}
    return Question(inputs, question.targets, question.is_matched)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _to(item, device) for name, item in value.items()}
    return value.to(device) if hasattr(value, "to") else value


class Answers(nn.Module):
    """Image features once, then every question about them: one forward pass for distributed training to wrap."""

    def __init__(self, model: OMGSegModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor | None, questions: Sequence[Mapping[str, Any]]
    ) -> list[list[QueryOutput]]:
        """Per question the predictions of all decoder layers, coarse first. questions: `Question.inputs`."""
        features = self.model.get_image_features(pixel_values, pixel_mask)
        answers = []
        for question in questions:
            arguments = {name: value for name, value in question.items() if name != "follow_up"}
            if "follow_up" in question:
                with torch.no_grad():
                    first = self.model(image_features=features, **{**arguments, "class_embeds": None})
                arguments["query_inputs"] = question["follow_up"](first.to_query_output())
            output = self.model(image_features=features, output_auxiliary=True, **arguments)
            answers.append([*(output.auxiliary or ()), output.to_query_output()])
        return answers
