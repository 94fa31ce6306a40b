"""Mask2Former, MaskFormer, OneFormer and EoMT of transformers as answers to learned queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from omg_transformers.structures import QueryOutput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

# The words these families know for what is asked.
TASKS = ("panoptic", "semantic", "instance")
# Tasks that windows of a picture can be put together for: elsewhere they would cut objects in two.
WINDOWED_TASKS = ("semantic",)
# The logit of places that a window does not see: no probability is left in float32, and means of it stay finite.
UNSEEN = -100.0


class LearnedQueryModel:
    """A model that finds everything by itself: each query has a mask and a class.

    processor: its image processor. task_tokens: per task the token ids (1, L) that OneFormer is told, else empty.
    """

    query_type = "learned"

    def __init__(self, model: Any, processor: Any, task_tokens: Mapping[str, Tensor]) -> None:
        self.model, self.processor, self.task_tokens = model, processor, task_tokens
        self.class_names: tuple[str, ...] = tuple(model.config.id2label[key] for key in sorted(model.config.id2label))

    def check_prompts(self, prompts: Mapping[str, Any]) -> None:
        """Refuse prompts: nothing here can be asked."""
        if prompts:
            raise ValueError(f"a {self.model.config.model_type} model takes no prompts, and got {sorted(prompts)}")

    def answer(
        self,
        picture: Image,
        task: str,
        prompts: Mapping[str, Any],  # noqa: ARG002 - checked before, there are none
    ) -> QueryOutput:
        """What the model says about one picture, its own classes and void, on its own mask grid.

        task: the name of the head; OneFormer is told that "the task is" this, or "panoptic" where it knows no such.
        """
        task = task if task in TASKS else TASKS[0]
        inputs = self.processor(images=[picture], return_tensors="pt")
        offsets = [(int(start), int(end)) for _, start, end in inputs.get("patch_offsets") or ()]
        if offsets and task not in WINDOWED_TASKS:
            raise ValueError(
                f"the model's preprocessor cuts pictures into windows (do_split_image), which serves "
                f"{' and '.join(WINDOWED_TASKS)} segmentation only, and the task is {task!r}: "
                "choose that task, or a model trained for this one"
            )
        names = [name for name in ("pixel_values", "pixel_mask") if name in inputs]
        tensors = {name: inputs[name].to(self.model.device) for name in names}
        if self.task_tokens:
            tensors["task_inputs"] = self.task_tokens[task].to(self.model.device)
        output = self.model(**tensors)
        class_logits, masks = output.class_queries_logits, output.masks_queries_logits
        input_size = tuple(inputs["pixel_values"].shape[-2:])
        if offsets:
            joined = join_windows(masks, offsets, input_size, is_vertical=picture.height > picture.width)
            return QueryOutput(class_logits.flatten(0, 1)[None], joined)
        return QueryOutput(
            class_logits,
            masks[:, :, None],
            input_size=_spanned_size(masks.shape[-2:], input_size),
            content_sizes=(self._content_size(picture, inputs),),
        )

    def _content_size(self, picture: Image, inputs: Mapping[str, Any]) -> tuple[int, int]:
        """What part of the input the picture takes, at the top left."""
        if "pixel_mask" in inputs:
            mask = inputs["pixel_mask"][0]
            return int(mask.any(1).sum()), int(mask.any(0).sum())
        if getattr(self.processor, "do_pad", False):
            bare = {"do_pad": False, "do_rescale": False, "do_normalize": False}
            inputs = self.processor(images=[picture], return_tensors="pt", **bare)
        height, width = inputs["pixel_values"].shape[-2:]
        return int(height), int(width)


def join_windows(
    masks: Tensor, offsets: Sequence[tuple[int, int]], window_size: tuple[int, int], *, is_vertical: bool
) -> Tensor:
    """The masks of a picture's windows as masks of the whole resized picture, one query per window and query.

    masks: (P, Q, h, w) logits. offsets: [start, end) of each window along the longer side. Returns
    (1, P * Q, 1, H, W) logits. Where n windows overlap, every probability is divided by n: sums over queries are the
    means over windows that EoMT takes.
    """
    masks = functional.interpolate(masks.float(), size=window_size, mode="bilinear", align_corners=False)
    masks = masks if is_vertical else masks.mT
    num_windows, num_queries, _, shorter = masks.shape
    counts = masks.new_zeros(max(end for _, end in offsets))
    for start, end in offsets:
        counts[start:end] += 1
    canvas = masks.new_full((num_windows, num_queries, len(counts), shorter), UNSEEN)
    for index, (start, end) in enumerate(offsets):
        canvas[index, :, start:end] = _divided(masks[index], counts[start:end, None]).clamp(min=UNSEEN)
    canvas = canvas if is_vertical else canvas.mT
    return canvas.flatten(0, 1)[None, :, None]


def _divided(logits: Tensor, counts: Tensor) -> Tensor:
    """The logits whose probabilities are those of `logits` divided by `counts`."""
    # p / n over 1 - p / n is 1 over (n - 1 + n exp(-logit)).
    return -torch.logaddexp((counts - 1).log(), counts.log() - logits)


def _spanned_size(grid: Sequence[int], input_size: Sequence[int]) -> tuple[int, int]:
    """The size in input pixels that the mask grid spans: the backbones fill their last patch up with zeros."""
    height, width = (max(side, places * round(side / places)) for places, side in zip(grid, input_size, strict=True))
    return height, width
