"""Class probabilities of queries, and which of overlapping masks to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from omg_transformers.ops.masks import mask_iou

if TYPE_CHECKING:
    from torch import Tensor


def class_probs(class_logits: Tensor | None, num_classes: int) -> Tensor:
    """Softmax over the classes and void: (B, Q, K + 1) float32, void last. `num_classes` is the expected K."""
    if class_logits is None:
        raise ValueError(
            "class_logits is None, and this task needs classes: "
            "pass class_embeds to the model, or labels to the processor or pipeline"
        )
    if class_logits.shape[-1] != num_classes + 1:
        raise ValueError(
            f"is_thing has {num_classes} flags but class_logits holds {class_logits.shape[-1] - 1} classes and void: "
            "give one flag per class of the label space the logits were made with"
        )
    return class_logits.float().softmax(-1)


def suppress_overlaps(masks: Tensor, scores: Tensor, max_iou: float) -> Tensor:
    """Which masks stay when, from the best score down, each removes those it overlaps by more than `max_iou`.

    masks: (N, ...) bool. scores: (N,). Returns the indices of those that stay, ascending.
    """
    overlaps = (mask_iou(masks, masks) > max_iou).cpu()
    order = scores.argsort(descending=True, stable=True).tolist()
    is_kept = torch.ones(len(order), dtype=torch.bool)
    for place, index in enumerate(order):
        if is_kept[index]:
            worse = torch.tensor(order[place + 1 :], dtype=torch.long)
            is_kept[worse] &= ~overlaps[index, worse]
    return is_kept.nonzero().flatten().to(masks.device)
