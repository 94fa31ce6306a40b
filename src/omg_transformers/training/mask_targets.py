"""Target masks in the form that a loss compares with: on the mask grid, or at points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from omg_transformers.ops.points import sample_at_points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.structures import QueryTargets


def tall(maps: Tensor) -> Tensor:
    """(.., T, h, w) as one tall picture (.., T * h, w): frames below each other, as the original samples clips."""
    return maps.flatten(-3, -2)


class MaskTargets:
    """The masks of a batch, with the unknown regions kept apart.

    labels: (M,) over all samples; sample b owns rows starts[b]:starts[b + 1]. All masks share one size.
    """

    def __init__(self, targets: Sequence[QueryTargets], *, device: torch.device) -> None:
        _check_targets(targets)
        counts = [len(target.labels) for target in targets]
        self.starts = [0]
        for count in counts:
            self.starts.append(self.starts[-1] + count)
        self.counts = counts
        self.labels = torch.cat([target.labels for target in targets]).to(device)
        self.masks = torch.cat([target.masks for target in targets]).to(device)
        frames = self.masks.shape[1:]
        self.has_unknown = any(target.unknown is not None for target in targets)
        blank = torch.zeros(frames, dtype=torch.bool, device=device)
        self.unknown = torch.stack([blank if t.unknown is None else t.unknown.to(device) for t in targets])
        self.sample_index = torch.repeat_interleave(
            torch.arange(len(targets), device=device), torch.tensor(counts, device=device)
        )
        self.is_open = torch.tensor([is_open(target.is_certain) for target in targets], device=device)
        self.is_certain = [target.is_certain for target in targets]
        self._grids: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def rows(self, sample: int) -> slice:
        """The rows of one sample's segments."""
        return slice(self.starts[sample], self.starts[sample + 1])

    def possible_outcomes(self, num_outcomes: int) -> Tensor | None:
        """What a query without a segment may show: the classes that are not certain, and void, the last one.

        (B, num_outcomes) bool; None: void in all samples.
        """
        if all(flags is None for flags in self.is_certain):
            return None
        rows = torch.zeros(len(self.is_certain), num_outcomes, dtype=torch.bool)
        rows[:, -1] = True
        for index, flags in enumerate(self.is_certain):
            if flags is None:
                continue
            if len(flags) != num_outcomes - 1:
                raise ValueError(
                    f"targets[{index}].is_certain has {len(flags)} flags but class_embeds name {num_outcomes - 1} "
                    "classes: targets and class_embeds must come from one label space"
                )
            rows[index, :-1] = ~flags.cpu()
        return rows.to(self.labels.device)

    def on_grid(self, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Masks averaged over each cell's known area (M, T * h * w), and each cell's known share (B, T * h * w)."""
        if size not in self._grids:
            known = F.adaptive_avg_pool2d((~self.unknown).float(), size)
            if self.has_unknown:
                masks = (self.masks & ~self.unknown[self.sample_index]).float()
                cells = F.adaptive_avg_pool2d(masks, size) / known.clamp(min=1e-6)[self.sample_index]
            else:
                cells = F.adaptive_avg_pool2d(self.masks.float(), size)
            self._grids[size] = (cells.flatten(1), known.flatten(1))
        return self._grids[size]

    def dead_cells(self, size: tuple[int, int]) -> Tensor | None:
        """1 where a cell of the mask grid is unknown as a whole, as a tall picture (B, 1, T * h, w); None: nowhere."""
        if not self.has_unknown:
            return None
        known = self.on_grid(size)[1].view(len(self.unknown), 1, -1, size[1])
        return (known <= 0).float()

    def at_points(self, points: Tensor, rows: Tensor | slice) -> Tensor:
        """Masks of `rows` at points (R, P, 2) or (1, P, 2) of the tall picture: (R, P) in [0, 1]."""
        return sample_at_points(tall(self.masks[rows].float())[:, None], points)[:, 0]

    def known_at_points(self, points: Tensor, samples: Tensor, size: tuple[int, int]) -> Tensor:
        """1 at points (R, P, 2) where sample `samples[r]` is known, else 0: (R, P).

        A point also counts as unknown when a wholly unknown cell of the mask grid would take part in its logit.
        """
        if not self.has_unknown:
            return torch.ones(points.shape[:2], device=points.device)
        fine = sample_at_points(tall(self.unknown.float())[samples][:, None], points)[:, 0]
        dead = self.dead_cells(size)
        assert dead is not None
        coarse = sample_at_points(dead[samples], points)[:, 0]
        return ((fine <= 0) & (coarse <= 0)).float()


def is_open(is_certain: Tensor | None) -> bool:
    """Whether a sample may show objects that nobody annotated."""
    return is_certain is not None and not bool(is_certain.all())


def _check_targets(targets: Sequence[QueryTargets]) -> None:
    if not targets:
        raise ValueError("targets is empty: give one QueryTargets per sample of the batch")
    frames = tuple(targets[0].masks.shape[1:])
    for index, target in enumerate(targets):
        if target.masks.ndim != 4 or tuple(target.masks.shape[1:]) != frames:
            raise ValueError(
                f"targets[{index}].masks has shape {tuple(target.masks.shape)}: expected (N, T, H, W) with one "
                f"(T, H, W) for the whole batch, here {frames}. Pad the annotations to the padded input size."
            )
        if len(target.labels) != len(target.masks):
            raise ValueError(f"targets[{index}] has {len(target.labels)} labels for {len(target.masks)} masks")
        if target.unknown is not None and tuple(target.unknown.shape) != frames:
            raise ValueError(
                f"targets[{index}].unknown has shape {tuple(target.unknown.shape)}, its masks {frames}: they must agree"
            )
