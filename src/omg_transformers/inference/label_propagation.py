"""Soft masks carried from frame to frame by what the pixels look like: all objects in one computation.

Each cell of a new frame looks for the cells of remembered frames that resemble it most and takes over their labels
(space-time correspondence, Jabri et al. 2020). Nothing is trained for it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Cells of a new frame that are compared with the memory at once.
CELLS_AT_ONCE = 1024
FAR = -1e4


@dataclasses.dataclass(frozen=True, slots=True)
class Propagation:
    """How labels are carried. num_neighbours: remembered cells that a cell listens to. temperature: of the softmax over
    their cosines. radius, anchor_radius: how far a label can jump from recent frames and from anchors, in shares of the
    longer side; None: anywhere.
    """

    num_neighbours: int = 5
    temperature: float = 0.1
    radius: float = 0.2
    anchor_radius: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledFrame:
    """What is remembered of one frame, N = h * w cells.

    features: (C, N) float16 unit vectors. labels: (O, N) uint8, 255 where the object fills the cell. ids: (O,) the
    objects it knows of; of others it says nothing.
    """

    index: int
    features: Tensor
    labels: Tensor
    ids: tuple[int, ...]
    is_anchor: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return self.features.nbytes + self.labels.nbytes

    def with_objects(self, ids: Sequence[int], labels: Tensor) -> LabelledFrame:
        """The frame with new rows of labels (O, N) for some objects, known before or not."""
        rows = dict(zip(self.ids, self.labels, strict=True)) | dict(zip(ids, labels, strict=True))
        return dataclasses.replace(self, labels=torch.stack(list(rows.values())), ids=tuple(rows))

    def without(self, object_id: int) -> LabelledFrame:
        """The frame without what it knows of one object."""
        kept = [row for row, number in enumerate(self.ids) if number != object_id]
        return dataclasses.replace(self, labels=self.labels[kept], ids=tuple(self.ids[row] for row in kept))


def cell_distances(size: tuple[int, int]) -> Tensor:
    """Of all pairs of cells of a grid (h, w): (N, N) float16, the larger of both axes, in shares of the longer side."""
    rows, columns = torch.arange(size[0]), torch.arange(size[1])
    down = (rows[:, None] - rows[None]).abs()
    across = (columns[:, None] - columns[None]).abs()
    distances = torch.maximum(down[:, None, :, None], across[None, :, None, :]).reshape(size[0] * size[1], -1)
    return distances.half() / max(size)


def propagate_labels(
    features: Tensor,
    memory: Sequence[LabelledFrame],
    ids: Sequence[int],
    distances: Tensor,
    settings: Propagation,
) -> Tensor:
    """The share of each cell that each object fills: (O, N) float32. features: (C, N) unit vectors of the new frame.

    An object is asked only of the frames that know of it. distances: of `cell_distances`.
    """
    keys = torch.cat([frame.features for frame in memory], dim=1).float()
    labels, is_known = _label_table(memory, ids)
    parts = []
    for start in range(0, features.shape[1], CELLS_AT_ONCE):
        cells = slice(start, start + CELLS_AT_ONCE)
        cosines = features[:, cells].float().T @ keys
        for place, frame in enumerate(memory):
            radius = settings.anchor_radius if frame.is_anchor else settings.radius
            if radius is not None:
                columns = slice(place * features.shape[1], (place + 1) * features.shape[1])
                cosines[:, columns].masked_fill_(distances[cells] > radius, FAR)
        best, nearest = cosines.topk(min(settings.num_neighbours, cosines.shape[1]), dim=1)
        weights = (best / settings.temperature).softmax(1)
        share = (weights[None] * labels[:, nearest]).sum(-1)
        trust = (weights[None] * is_known[:, nearest]).sum(-1)
        parts.append(share / trust.clamp(min=1e-6))
    return torch.cat(parts, dim=1)


def _label_table(memory: Sequence[LabelledFrame], ids: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Labels of all remembered cells as shares, (O, M), and whether their frame knows the object, (O, M) float32."""
    labels, known = [], []
    for frame in memory:
        rows = {number: row for row, number in enumerate(frame.ids)}
        table = torch.zeros((len(ids), frame.labels.shape[1]), device=frame.labels.device)
        is_known = torch.zeros_like(table)
        for place, number in enumerate(ids):
            if number in rows:
                table[place] = frame.labels[rows[number]].float() / 255
                is_known[place] = 1
        labels.append(table)
        known.append(is_known)
    return torch.cat(labels, dim=1), torch.cat(known, dim=1)


def to_labels(shares: Tensor) -> Tensor:
    """Shares in [0, 1] as uint8."""
    return (shares.clamp(0, 1) * 255).round().to(torch.uint8)


def cell_shares(masks: Tensor, size: tuple[int, int]) -> Tensor:
    """How much of each cell of a grid (h, w) each mask fills: (O, H, W) bool to (O, h * w) float32."""
    if not len(masks):
        return torch.zeros((0, size[0] * size[1]), device=masks.device)
    return functional.adaptive_avg_pool2d(masks[None].float(), size)[0].flatten(1)
