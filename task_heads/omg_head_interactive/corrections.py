"""What a person who sees a first answer says next: clicks into its largest errors, and the answer itself as a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.ndimage import distance_transform_cdt, label
from torch import Tensor
from torch.nn import functional as F

from omg_transformers.structures import MASK_STRIDE, NO_PROMPT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_CLICKS = 3
# Of all objects: how many give a mask; of these, how many a damaged true one instead of the answer; and how many of
# those that give a mask say nothing else.
MASK_SHARE, DAMAGE_SHARE, ALONE_SHARE = 0.6, 0.5, 0.25


def correct(
    inputs: Mapping[str, Tensor], truths: Tensor, logits: Tensor, *, generator: torch.Generator
) -> dict[str, Tensor]:
    """inputs: `input_points` (B, N, 1, 2) or `input_boxes` (B, N, 4), pixels of the padded input.

    truths: (B, N, h, w) bool and logits: (B, N, h, w), of the first answer, on the grid of mask logits.
    Returns the prompts with up to MAX_CLICKS more clicks each, and masks for some.
    """
    batch, count = truths.shape[:2]
    points = torch.full((batch, count, MAX_CLICKS + 1, 2), float(NO_PROMPT))
    labels = torch.full((batch, count, MAX_CLICKS + 1), NO_PROMPT)
    boxes = inputs.get("input_boxes", torch.full((batch, count, 4), float(NO_PROMPT))).clone()
    if "input_points" in inputs:
        points[:, :, :1], labels[:, :, 0] = inputs["input_points"], 1
    numbers = torch.randint(1, MAX_CLICKS + 1, (batch, count), generator=generator)
    draws = torch.rand((3, batch, count), generator=generator)
    is_damaged = (draws[0] < MASK_SHARE) & (draws[1] < DAMAGE_SHARE)
    masks = torch.where(is_damaged[..., None, None], damaged(truths, generator=generator), logits > 0)
    gives_mask = (draws[0] < MASK_SHARE) & masks.flatten(2).any(-1)
    is_alone = gives_mask & (draws[2] < ALONE_SHARE)
    for sample in range(batch):
        for index in range(count):
            number = 0 if is_alone[sample, index] else int(numbers[sample, index])
            clicks = clicks_into_errors(masks[sample, index].numpy(), truths[sample, index].numpy(), number)
            for place, (x, y, is_inside) in enumerate(clicks, 1):
                points[sample, index, place] = (torch.tensor([x, y]) + 0.5) * MASK_STRIDE
                labels[sample, index, place] = is_inside
    labels[is_alone], boxes[is_alone] = NO_PROMPT, float(NO_PROMPT)
    return {
        "input_points": points,
        "input_labels": labels,
        "input_boxes": boxes,
        "input_masks": (masks & gives_mask[..., None, None]).float(),
    }


def damaged(masks: Tensor, *, generator: torch.Generator) -> Tensor:
    """Masks (B, N, h, w) bool as a poor segmenter would give them: parts missing, parts too much, sometimes another."""
    batch, count, *size = masks.shape
    soft = masks.float() * 2 - 1
    for _ in range(2):
        soft = F.avg_pool2d(soft, 5, stride=1, padding=2, count_include_pad=False)
    coarse = [max(side // 8, 1) for side in size]
    noise = torch.randn((batch, count, *coarse), generator=generator)
    strength = torch.rand((batch, count, 1, 1), generator=generator) * 1.2
    growth = torch.rand((batch, count, 1, 1), generator=generator) * 1.2 - 0.6
    noisy = soft + growth + strength * F.interpolate(noise, size=size, mode="bilinear", align_corners=False) > 0
    other = masks[:, torch.randperm(count, generator=generator)]
    takes_other = torch.rand((batch, count, 1, 1), generator=generator) < 0.25
    return noisy | (other & takes_other)


def clicks_into_errors(
    mask: NDArray[np.bool_], truth: NDArray[np.bool_], number: int
) -> list[tuple[float, float, bool]]:
    """Up to `number` clicks (x, y, is inside), each the deepest cell of an error region, the deepest regions first."""
    found: list[tuple[float, float, float, bool]] = []
    for is_inside, errors in ((True, truth & ~mask), (False, mask & ~truth)) if number else ():
        if not errors.any():
            continue
        depths = distance_transform_cdt(np.pad(errors, 1), metric="taxicab")[1:-1, 1:-1]
        regions, count = label(errors)
        for region in range(1, min(count, 32) + 1):
            inside = np.where(regions == region, depths, 0)
            y, x = divmod(int(inside.argmax()), mask.shape[1])
            found.append((float(inside[y, x]), x, y, is_inside))
    found.sort(key=lambda click: -click[0])
    return [(x, y, is_inside) for _, x, y, is_inside in found[:number]]
