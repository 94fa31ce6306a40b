"""What a head asks about a batch in training, and the module that answers several heads from one set of features."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from omg_transformers.plugins.contract import CorrectsAnswers, MakesQueryInputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from omg_transformers.model import OMGSegModel
    from omg_transformers.plugins.contract import TaskHead
    from omg_transformers.structures import Annotation, QueryOutput, QueryTargets


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
    with_classes: bool = False,
    correction_share: float = 0.0,
) -> Question:
    """What `head` asks about clips whose annotations are at the padded input `size`.

    with_classes: teach the names of segments also through a head that does not use them. correction_share: how often
    a head that can correct answers asks a second time.
    Raises TypeError for a head whose query type is not "learned" and that cannot make query inputs.
    """
    targets = [head.targets(annotation) for annotation in annotations]
    inputs: dict[str, Any] = {"query_type": head.spec.query_type}
    if head.spec.has_classes or with_classes:
        inputs["class_embeds"] = class_embeds
    if isinstance(head, MakesQueryInputs):
        inputs["query_inputs"], targets = head.query_inputs(targets, size=size, generator=generator)
        asks_again = correction_share > 0 and float(torch.rand((), generator=generator)) < correction_share
        if asks_again and isinstance(head, CorrectsAnswers):
            inputs["follow_up"] = functools.partial(_correct, head, inputs["query_inputs"], targets, generator)
        return Question(inputs, targets, is_matched=False)
    if head.spec.query_type != "learned":
        raise TypeError(
            f"head {head.spec.name!r} asks {head.spec.query_type!r} queries but has no `query_inputs`: it cannot be "
            "trained; see omg_transformers.plugins.MakesQueryInputs"
        )
    return Question(inputs, targets, is_matched=True)


def _correct(
    head: CorrectsAnswers,
    inputs: Mapping[str, Tensor],
    targets: Sequence[QueryTargets],
    generator: torch.Generator,
    output: QueryOutput,
) -> dict[str, Tensor]:
    device = output.mask_logits.device
    return {
        name: value.to(device) for name, value in head.corrections(inputs, targets, output, generator=generator).items()
    }


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
