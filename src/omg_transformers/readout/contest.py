"""Which query wins each pixel of a clip, tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from omg_transformers.ops.resize import MaskResizer

# Queries that are resized at once for one tile.
QUERIES_AT_ONCE = 16


class Contest:
    """N queries contest the pixels of a clip with score x mask probability; the first of equals wins.

    After `run`: won (N,) pixels won, believed (N,) pixels won with an own probability of at least 0.5, own (N,) pixels
    with an own probability of at least 0.5, won or not. All summed over the frames.
    """

    def __init__(self, masks: Tensor, kept: Tensor, scores: Tensor, resizer: MaskResizer) -> None:
        """masks: (Q, T, h, w) logits. kept: (N,) the queries that take part. scores: (N,) in [0, 1]."""
        self.masks, self.kept, self.scores, self.resizer = masks, kept, scores, resizer
        self.own, self.won, self.believed = torch.zeros((3, len(kept)), dtype=torch.long, device=masks.device)
        # 0: nobody; 1 + 2 * n: query n won; 2 + 2 * n: it won and believes. Becomes the id map in place.
        self.codes = torch.zeros((masks.shape[1], *resizer.target_size), dtype=torch.int32, device=masks.device)

    def run(self) -> None:
        """Decide every pixel."""
        for frame in range(self.masks.shape[1] if len(self.kept) else 0):
            self._run_frame(frame)

    def id_map(self, ids: Sequence[int], *, only_believed: bool) -> Tensor:
        """The ids (0: void) of the winners: (T, H, W) int32. Uses up the contest."""
        table = torch.zeros(2 * len(ids) + 1, dtype=torch.int32, device=self.codes.device)
        numbers = torch.tensor(ids, dtype=torch.int32, device=self.codes.device)
        table[2::2] = numbers
        if not only_believed:
            table[1::2] = numbers
        for frame in self.codes:
            for rows in self.resizer.row_bands:
                strip = frame[rows.target]
                strip.copy_(table[strip])
        return self.codes

    def _run_frame(self, frame: int) -> None:
        masks = self.masks[:, frame]
        low, high = (bound[..., self.kept] for bound in self.resizer.bounds(masks))
        # Resized logits lie between the bounds, so a query whose best is below another's worst wins nowhere in a tile.
        worst = (self.scores * low.sigmoid()).amax(-1, keepdim=True)
        can_win = ((self.scores * high.sigmoid()) * (1 + 1e-5) >= worst).cpu()
        is_all_inside = low >= 0
        is_edge = ((high >= 0) & ~is_all_inside).cpu()
        inside = is_all_inside.cpu()
        areas = torch.tensor(
            [
                [(rows.stop - rows.start) * (columns.stop - columns.start) for columns in self.resizer.column_bands]
                for rows in self.resizer.row_bands
            ],
            device=low.device,
        )
        self.own += (is_all_inside * areas[..., None]).sum((0, 1))
        for row, column in self.resizer.tiles():
            tile = (row, column)
            contenders = can_win[tile].nonzero().flatten()
            if not len(contenders):
                raise ValueError("mask_logits holds NaN: check the picture and the model's weights")
            edges = is_edge[tile]
            if len(contenders) == 1 and not edges[contenders[0]]:
                self._give(frame, tile, int(contenders[0]), int(areas[tile]), bool(inside[tile][contenders[0]]))
            else:
                self._contend(frame, tile, contenders, edges)
            self._count(masks, tile, (edges & ~can_win[tile]).nonzero().flatten())

    def _give(self, frame: int, tile: tuple[int, int], place: int, area: int, believes: bool) -> None:
        """A tile that only one query can win."""
        rows, columns = self.resizer.row_bands[tile[0]], self.resizer.column_bands[tile[1]]
        self.won[place] += area
        self.believed[place] += area * believes
        self.codes[frame, rows.target, columns.target] = 1 + 2 * place + believes

    def _contend(self, frame: int, tile: tuple[int, int], contenders: Tensor, edges: Tensor) -> None:
        """A tile that several queries can win."""
        rows, columns = self.resizer.row_bands[tile[0]], self.resizer.column_bands[tile[1]]
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        best = torch.full(shape, -1.0, device=self.codes.device)
        codes = torch.zeros(shape, dtype=torch.long, device=self.codes.device)
        for part in torch.split(contenders, QUERIES_AT_ONCE):
            places = part.to(codes.device)
            logits = self._logits(self.masks[:, frame], tile, places)
            is_inside = logits >= 0
            on_edge = edges[part].nonzero().flatten().to(codes.device)
            self.own[places[on_edge]] += is_inside[on_edge].sum((1, 2))
            value, winner = logits.sigmoid_().mul_(self.scores[places, None, None]).max(0)
            code = 2 * places[winner] + is_inside.gather(0, winner[None])[0]
            codes = torch.where(value > best, code, codes)
            best = torch.maximum(value, best)
        counts = torch.bincount(codes.flatten(), minlength=2 * len(self.kept)).view(-1, 2)
        self.won += counts.sum(1)
        self.believed += counts[:, 1]
        self.codes[frame, rows.target, columns.target] = codes + 1

    def _count(self, masks: Tensor, tile: tuple[int, int], losers: Tensor) -> None:
        """The own pixels of queries that cannot win a tile but have a part of it inside."""
        for part in torch.split(losers, QUERIES_AT_ONCE):
            places = part.to(self.codes.device)
            self.own[places] += (self._logits(masks, tile, places) >= 0).sum((1, 2))

    def _logits(self, masks: Tensor, tile: tuple[int, int], places: Tensor) -> Tensor:
        rows, columns = self.resizer.row_bands[tile[0]], self.resizer.column_bands[tile[1]]
        return self.resizer.expand(masks[self.kept[places], rows.grid, columns.grid], *tile)
