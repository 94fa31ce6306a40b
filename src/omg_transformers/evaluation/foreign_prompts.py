"""SAM and SAM 2 of transformers as answers to points and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.processing.prompts import prepare_boxes, prepare_point_labels, prepare_points
from omg_transformers.structures import QueryOutput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image
    from torch import Tensor

PROMPTS = ("input_points", "input_labels", "input_boxes")
# Objects that the mask decoder works on at once: each holds the features of the whole picture.
OBJECTS_AT_ONCE = 16


class PromptedModel:
    """A model that is asked by points and boxes: one mask per object, no classes.

    multimask_output: of the several masks that the model proposes per object, take the one that it scores best;
    False: its single mask.
    """

    query_type = "prompt"
    class_names: tuple[str, ...] = ()

    def __init__(self, model: Any, processor: Any, *, multimask_output: bool = True) -> None:
        self.model, self.processor, self.multimask_output = model, processor, multimask_output

    def check_prompts(self, prompts: Mapping[str, Any]) -> None:
        """Refuse what is no question at all; the numbers are checked when the picture is known."""
        unknown = sorted(set(prompts) - set(PROMPTS))
        if unknown:
            raise ValueError(f"the prompts hold {unknown}: expected {', '.join(PROMPTS)}")
        if prompts.get("input_points") is None and prompts.get("input_boxes") is None:
            raise ValueError(
                f"a {self.model.config.model_type} model needs prompts, and got {sorted(prompts)}: "
                "give input_points=[[[x, y]]] or input_boxes=[[x1, y1, x2, y2]] for every picture"
            )

    def answer(self, picture: Image, task: str, prompts: Mapping[str, Any]) -> QueryOutput:  # noqa: ARG002 - one task
        """One query per object. prompts: input_points [object][point][x, y], input_labels [object][point] (1 inside,
        0 outside), input_boxes [object][x1, y1, x2, y2], in pixels of the picture; points and boxes together ask for
        the same objects.
        """
        inputs = self.processor(images=[picture], return_tensors="pt")
        height, width = inputs["pixel_values"].shape[-2:]
        # SAM pads what it has resized, SAM 2 stretches the picture over the whole input.
        content = inputs["reshaped_input_sizes"][0].tolist() if "reshaped_input_sizes" in inputs else (height, width)
        content = (int(content[0]), int(content[1]))
        questions = _questions(prompts, (picture.height, picture.width), content)
        embeddings = self.model.get_image_embeddings(inputs["pixel_values"].to(self.model.device))
        count = len(next(iter(questions.values()))[0])
        chunks = [slice(start, start + OBJECTS_AT_ONCE) for start in range(0, count, OBJECTS_AT_ONCE)]
        answers = [
            self._best_masks(embeddings, {name: value[:, chunk] for name, value in questions.items()})
            for chunk in chunks
        ]
        masks, scores = (torch.cat(parts) for parts in zip(*answers, strict=True))
        return QueryOutput(
            None, masks[None, :, None], scores[None], input_size=(height, width), content_sizes=(content,)
        )

    def _best_masks(self, embeddings: Any, questions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mask logits (N, h, w) and the logits of their predicted IoU (N,) for N objects."""
        questions = {name: value.to(self.model.device) for name, value in questions.items()}
        output = self.model(image_embeddings=embeddings, multimask_output=self.multimask_output, **questions)
        scores, place = output.iou_scores[0].float().max(-1)
        masks = output.pred_masks[0][torch.arange(len(place), device=place.device), place]
        # SAM's scores come from a bare linear layer and may leave [0, 1]; heads expect logits.
        return masks, scores.logit(eps=1e-6)


def _questions(prompts: Mapping[str, Any], size: tuple[int, int], content: tuple[int, int]) -> dict[str, Tensor]:
    """The prompts of one picture as tensors (1, N, ...) in pixels of the model's input."""
    sizes: dict[str, Any] = {"sizes": [size], "resized_sizes": [content]}
    points, labels, boxes = (prompts.get(name) for name in PROMPTS)
    questions = {}
    if points is not None:
        questions["input_points"] = prepare_points([points], **sizes)
        if labels is not None:
            questions["input_labels"] = prepare_point_labels([labels], questions["input_points"])
    elif labels is not None:
        raise ValueError("input_labels came without input_points: give the points that they belong to")
    if boxes is not None:
        questions["input_boxes"] = prepare_boxes([boxes], **sizes)
    counts = {name: value.shape[1] for name, value in questions.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the prompts are about different numbers of objects, {counts}: give one of each per object")
    return questions
