"""Weights and choices of the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights and choices; the defaults are those of OMG-Seg.

    mask_loss: "points" (PointRend) or "maps" (every cell of the mask grid: cheaper when masks are small).
    iou_target: what a matched query's quality score learns: 1 ("matched"), or the IoU its mask has ("iou").
    follow_original: keep the original's normalisers, which are wrong for prompts, labels -1 and whole maps.
    """

    class_weight: float = 2.0
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    iou_weight: float = 2.0
    # 0.1, not 1: nearly all queries match nothing and would drown the class loss (DETR, sec. 3.1).
    no_object_weight: float = 0.1
    match_class_cost: float = 2.0
    match_mask_cost: float = 5.0
    match_dice_cost: float = 5.0
    mask_loss: Literal["points", "maps"] = "points"
    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75
    iou_target: Literal["matched", "iou"] = "matched"
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    follow_original: bool = False

    def __post_init__(self) -> None:
        if self.mask_loss not in ("points", "maps"):
            raise ValueError(f"mask_loss is {self.mask_loss!r}: choose 'points' or 'maps'")
        if self.iou_target not in ("matched", "iou"):
            raise ValueError(f"iou_target is {self.iou_target!r}: choose 'matched' or 'iou'")
        if self.num_points < 1:
            raise ValueError(f"num_points is {self.num_points}: at least 1 point is needed per mask")


@dataclass(frozen=True, slots=True)
class FixedChoices:
    """Random choices and assignments taken from elsewhere, by prediction layer; what is None is drawn or computed.

    match_points[layer][sample]: (P, 2). loss_points[layer]: (pairs, P, 2), pairs ordered by (sample, query).
    """

    match_points: Sequence[Sequence[Tensor]] | None = None
    loss_points: Sequence[Tensor] | None = None
