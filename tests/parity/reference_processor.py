"""A processor through which the reference's pictures and classes reach the model as the original has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from omg_transformers.labels import LabelClass, LabelSpace, Vocabulary
from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class PaddingAsPicture(OMGSegProcessor):
    """As the original: it does not tell the model where the picture ends."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inputs = super().__call__(*args, **kwargs)
        inputs["pixel_mask"] = torch.ones_like(inputs["pixel_mask"])
        return inputs


def reference_processor(class_embeds: Tensor, is_thing: Sequence[bool]) -> PaddingAsPicture:
    """It asks for the reference's classes by their prototypes (K, P, D) and takes its pictures as they are."""
    names = [
        [f"class {label} as {number}" for number in range(class_embeds.shape[1])] for label in range(len(is_thing))
    ]
    table = {
        name: vector
        for row, part in zip(names, class_embeds, strict=True)
        for name, vector in zip(row, part, strict=True)
    }
    classes = tuple(
        LabelClass(row[0], tuple(row[1:]), is_thing[label], (0, 0, 0), label) for label, row in enumerate(names)
    )
    vocabulary = Vocabulary.from_table(list(table), torch.stack(list(table.values())))
    return PaddingAsPicture(OMGSegImageProcessor(do_resize=False), LabelSpace("reference", classes), vocabulary)
