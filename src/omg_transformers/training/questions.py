"""What a head asks about a batch in training, and the module that answers several heads from one set of features."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omg_transformers.plugins.contract import CorrectsAnswers, MakesQueryInputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from omg_transformers.model import OMGSegModel
    from omg_transformers.model.query_decoder import ImageFeatures
    from omg_transformers.plugins.contract import TaskHead
    from omg_transformers.structures import Annotation, QueryOutput, QueryTargets


@dataclass(frozen=True, slots=True)
class Question:
    """One head's question about a batch: arguments for the model, and what the answer is compared with.

    is_matched: queries are matched to targets; False: query i answers target i. `follow_up` among the inputs makes of
    the first answer the query inputs of a second question, which is the one that counts.
    clips: numbers of the clips of the batch that it is about, None: all.
    """

    inputs: dict[str, Any]
    targets: list[QueryTargets]
    is_matched: bool
    clips: tuple[int, ...] | None = None


def make_question(
    head: TaskHead,
    annotations: Sequence[Annotation],
    *,
    class_embeds: Tensor | None,
    size: tuple[int, int],
    generator: torch.Generator,
    with_classes: bool = False,
    correction_share: float = 0.0,
) -> Question:
    """What `head` asks about clips whose annotations are at the padded input `size`.

    with_classes: teach the names of segments also through a head that does not use them. correction_share: how often
    a head that can correct answers asks a second time.
    Raises TypeError for a head whose query type is not "learned" and that cannot make query inputs.
    """
    targets = [_targets(head, annotation) for annotation in annotations]
    inputs: dict[str, Any] = {"query_type": head.spec.query_type}
    if head.spec.has_classes or with_classes:
        inputs["class_embeds"] = class_embeds
    if isinstance(head, MakesQueryInputs):
        inputs["query_inputs"], targets = head.query_inputs(targets, size=size, generator=generator)
        asks_again = correction_share > 0 and float(torch.rand((), generator=generator)) < correction_share
        if asks_again and isinstance(head, CorrectsAnswers):
            asked = [_Asked(inputs["query_inputs"], targets, generator)]
            inputs["follow_up"] = functools.partial(_correct, head, asked)
        return Question(inputs, targets, is_matched=False)
    if head.spec.query_type != "learned":
        raise TypeError(
            f"head {head.spec.name!r} asks {head.spec.query_type!r} queries but has no `query_inputs`: it cannot be "
            "trained; see omg_transformers.plugins.MakesQueryInputs"
        )
    return Question(inputs, targets, is_matched=True)


def make_independent_questions(
    head: TaskHead,
    annotations: Sequence[Annotation],
    *,
    class_embeds: Tensor | None,
    size: tuple[int, int],
    generators: Sequence[torch.Generator],
    with_classes: bool = False,
    asks_again: bool = False,
) -> list[Question]:
    """As `make_question`, but what is asked about a clip does not depend on what else is in the batch.

    generators: one per clip. asks_again: let a head that can correct answers ask a second time. Clips that are asked
    by inputs of the same names share a question.
    """
    if not isinstance(head, MakesQueryInputs):
        unused = torch.Generator()
        ask = functools.partial(make_question, head, annotations, size=size, generator=unused)
        return [ask(class_embeds=class_embeds, with_classes=with_classes)]
    alike: dict[frozenset[str], dict[int, _Asked]] = {}
    for number, (annotation, generator) in enumerate(zip(annotations, generators, strict=True)):
        found, targets = head.query_inputs([head.targets(annotation)], size=size, generator=generator)
        alike.setdefault(frozenset(found), {})[number] = _Asked(found, targets, generator)
    questions = []
    for group in alike.values():
        asked = list(group.values())
        inputs: dict[str, Any] = {"query_type": head.spec.query_type, "query_inputs": _join(asked)}
        if head.spec.has_classes or with_classes:
            inputs["class_embeds"] = class_embeds
        if asks_again and isinstance(head, CorrectsAnswers):
            inputs["follow_up"] = functools.partial(_correct, head, asked)
        clips = tuple(group) if len(alike) > 1 else None
        questions.append(Question(inputs, [t for part in asked for t in part.targets], is_matched=False, clips=clips))
    return questions


def _targets(head: TaskHead, annotation: Annotation) -> QueryTargets:
    """What the head wants. Which classes are certain is the same for all heads: none has to say so."""
    targets = head.targets(annotation)
    if annotation.is_exhaustive or targets.is_certain is not None:
        return targets
    certain = annotation.certain_classes or frozenset()
    return replace(targets, is_certain=torch.tensor([label in certain for label in range(annotation.num_classes)]))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a head asked about some clips of a batch."""

    inputs: dict[str, Tensor]
    targets: list[QueryTargets]
    generator: torch.Generator


def _join(parts: Sequence[_Asked]) -> dict[str, Tensor]:
    names = list(parts[0].inputs)
    shapes = {name: {tuple(part.inputs[name].shape[1:]) for part in parts} for name in names}
    for name, found in shapes.items():
        if len(found) > 1:
            raise ValueError(
                f"query_inputs gives {name} of shapes {sorted(found)} for single clips: their number must not depend "
                "on the clip"
            )
    return {name: torch.cat([part.inputs[name] for part in parts]) for name in names}


def _correct(head: CorrectsAnswers, asked: Sequence[_Asked], output: QueryOutput) -> dict[str, Tensor]:
    answers = [output] if len(asked) == 1 else [output.select(index) for index in range(len(output))]
    said = [
        _Asked(
            head.corrections(part.inputs, part.targets, answer, generator=part.generator), part.targets, part.generator
        )
        for part, answer in zip(asked, answers, strict=True)
    ]
    device = output.mask_logits.device
    return {name: value.to(device) for name, value in _join(said).items()}


def select_clips(features: ImageFeatures, clips: Sequence[int]) -> ImageFeatures:
    """The features of some clips of a batch, in this order."""
    rows = torch.tensor(clips, device=features.clip_map.device)
    picked: ImageFeatures = _pick(features, rows, features.batch_size)
    return picked


def _pick(value: Any, rows: Tensor, batch: int) -> Any:
    if isinstance(value, torch.Tensor):  # (B, ...) or (B * T, ...)
        return value[rows] if len(value) == batch else value.unflatten(0, (batch, -1))[rows].flatten(0, 1)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{item.name: _pick(getattr(value, item.name), rows, batch) for item in fields(value)})
    if isinstance(value, tuple) and any(is_dataclass(item) for item in value):
        return tuple(_pick(item, rows, batch) for item in value)
    return value


def move_question(question: Question, device: torch.device) -> Question:
    """The same question with the model's inputs on `device`; the loss moves the targets itself."""
    inputs = {name: _to(value, device) for name, value in question.inputs.items()}
    return replace(question, inputs=inputs)


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
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None,
        questions: Sequence[Mapping[str, Any]],
        clips: Sequence[Sequence[int] | None] | None = None,
    ) -> list[list[QueryOutput]]:
        """Per question the predictions of all decoder layers, coarse first. questions: `Question.inputs`.

        clips: per question the clips that it is about, None: all.
        """
        everything = self.model.get_image_features(pixel_values, pixel_mask)
        answers = []
        for question, chosen in zip(questions, clips or [None] * len(questions), strict=True):
            features = everything if chosen is None else select_clips(everything, chosen)
            arguments = {name: value for name, value in question.items() if name != "follow_up"}
            if "follow_up" in question:
                with torch.no_grad():
                    first = self.model(image_features=features, **{**arguments, "class_embeds": None})
                arguments["query_inputs"] = question["follow_up"](first.to_query_output())
            output = self.model(image_features=features, output_auxiliary=True, **arguments)
            answers.append([*(output.auxiliary or ()), output.to_query_output()])
        return answers
