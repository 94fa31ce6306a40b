"""One-to-one matching of queries to segments: the Hungarian assignment and its costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def class_costs(class_logits: Tensor, iou_logits: Tensor | None, labels: Tensor, *, is_flexible: bool = True) -> Tensor:
    """Minus the probability of each label: (Q, N).

    class_logits: (Q, K + 1), void last. iou_logits: (Q,). labels: (N,) in [0, K), or -1: no class is known, then the
    quality of the mask stands in. `is_flexible`: that quality is sigmoid(iou) beside a softmax over K + 1; otherwise it
    takes part in one softmax over K + 2, as in the original's validation config.
    """
    if iou_logits is None:
        quality = class_logits.new_zeros(len(class_logits), 1)
        return -_pick(torch.cat([class_logits.softmax(-1), quality], dim=-1), labels)
    quality = iou_logits[:, None].to(class_logits.dtype)
    if is_flexible:
        return -_pick(torch.cat([class_logits.softmax(-1), quality.sigmoid()], dim=-1), labels)
    return -_pick(torch.cat([class_logits, quality], dim=-1).softmax(-1), labels)


def _pick(probs: Tensor, labels: Tensor) -> Tensor:
    return probs.index_select(-1, labels.remainder(probs.shape[-1]))


def mask_costs(mask_logits: Tensor, masks: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy and dice distance of each query to each mask, each (Q, N).

    mask_logits: (Q, P). masks: (N, P) in [0, 1]. weights: (P,) in [0, 1], 0 where nothing is known.
    """
    probs = mask_logits.sigmoid()
    if weights is None:
        num_known: Tensor | float = float(max(mask_logits.shape[-1], 1))
        weighted, mass = masks, probs.sum(-1)
        background = F.softplus(mask_logits).sum(-1)
    else:
        num_known = weights.sum().clamp(min=1e-6)
        weighted, mass = masks * weights, probs @ weights
        background = F.softplus(mask_logits) @ weights
    # -log sigmoid(x) = softplus(x) - x: one product with the masks instead of two.
    entropy = (background[:, None] - mask_logits @ weighted.T) / num_known
    overlap = 2.0 * probs @ weighted.T
    dice = 1.0 - (overlap + 1.0) / (mass[:, None] + weighted.sum(-1)[None] + 1.0)
    return entropy, dice


def assign(costs: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """The cheapest one-to-one assignment of each (Q, N) cost matrix, computed on the CPU after one transfer.

    Returns per matrix (query indices ascending, target indices), both (min(Q, N),) int64 on the CPU.
    """
    if not costs:
        return []
    flat = torch.cat([cost.detach().flatten() for cost in costs]).float().cpu()
    if not bool(flat.isfinite().all()):
        raise ValueError(
            "matching costs are not finite: the model's outputs or the targets hold NaN or infinity. "
            "Lower the learning rate, clip gradients, or look for broken pictures in the batch."
        )
    pairs = []
    for part, cost in zip(torch.split(flat, [cost.numel() for cost in costs]), costs, strict=True):
        rows, columns = linear_sum_assignment(part.view(cost.shape).numpy())
        pairs.append((torch.from_numpy(rows).long(), torch.from_numpy(columns).long()))
    return pairs
