"""Mask logits at the size a person asked for, a tile at a time: queries x height x width never exists."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from omg_transformers.ops.masks import encode_window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.structures import RLE, QueryOutput

# Target pixels (rows, columns) of a tile. On a CPU a few tiles should fit into the cache; elsewhere launches cost more.
CPU_TILE_SIZE = (128, 256)
DEVICE_TILE_SIZE = (512, 1024)
# What a tile may span when it is made longer than usual: grid places, and target pixels (their weights are made dense).
MAX_GRID_PLACES = 64
MAX_TILE_LENGTH = 512
# How far float32 rounding may carry a weighted mean outside the values it is a mean of, relative to the largest.
ROUNDING = 4e-6


@dataclass(frozen=True, slots=True)
class Band:
    """Target places [start, stop) of one axis and the grid places [grid_start, grid_stop) they are means of.

    weights: (stop - start, grid_stop - grid_start) float32, rows sum to 1.
    """

    start: int
    stop: int
    grid_start: int
    grid_stop: int
    weights: Tensor

    @property
    def target(self) -> slice:
        """Where the band lies on the target."""
        return slice(self.start, self.stop)

    @property
    def grid(self) -> slice:
        """Where the band lies on the mask grid."""
        return slice(self.grid_start, self.grid_stop)


@dataclass(frozen=True, slots=True)
class ThresholdedMask:
    """A mask at the target size. rle: None when empty. prob_sum: sum of the probabilities of the pixels inside."""

    rle: RLE | None
    area: int
    prob_sum: float


class MaskResizer:
    """Bilinear resizing of masks from the mask grid to one sample's own size, as the original does it in two steps.

    The grid (h, w) is resized to the padded input, cut to the content, and resized to the target. Without
    `input_size` the grid spans just the content: one step. Equal to `interpolate` (align_corners=False) twice, within
    1e-5 for logits below 20, but both steps are one product with narrow matrices, and any tile can be had alone.
    One thing is mended: the original mixes the first row and column of padding into the picture's last pixels; here
    the last grid places that see the picture are repeated instead, so that padding never changes an answer.
    """

    def __init__(
        self,
        grid_size: tuple[int, int],
        target_size: tuple[int, int],
        *,
        input_size: tuple[int, int] | None = None,
        content_size: tuple[int, int] | None = None,
        device: torch.device | str = "cpu",
        tile_size: tuple[int, int] | None = None,
    ) -> None:
        _check_content(input_size, content_size)
        self.target_size = (int(target_size[0]), int(target_size[1]))
        self.device = torch.device(device)
        if tile_size is None:
            usual = CPU_TILE_SIZE if self.device.type == "cpu" else DEVICE_TILE_SIZE
            tile_size = _fitted_tile(usual, grid_size, self.target_size)
        axes = [
            _bands(
                grid_size[axis],
                None if input_size is None else input_size[axis],
                None if content_size is None else content_size[axis],
                self.target_size[axis],
                tile_size[axis],
                self.device,
            )
            for axis in (0, 1)
        ]
        self.row_bands, self.column_bands = axes

    @classmethod
    def of(cls, output: QueryOutput, index: int, size: tuple[int, int]) -> MaskResizer:
        """The resizer from the mask grid of `output` to the size (height, width) of its sample `index`."""
        height, width = output.mask_logits.shape[-2:]
        content = None if output.content_sizes is None else output.content_sizes[index]
        return cls(
            (height, width),
            size,
            input_size=output.input_size,
            content_size=None if content is None else (int(content[0]), int(content[1])),
            device=output.mask_logits.device,
        )

    @property
    def content_grid(self) -> tuple[int, int]:
        """Rows and columns of the grid that reach the target; what lies beyond is padding."""
        return self.row_bands[-1].grid_stop, self.column_bands[-1].grid_stop

    def tiles(self) -> Iterator[tuple[int, int]]:
        """(row band, column band) of every tile, row by row."""
        return ((row, column) for row in range(len(self.row_bands)) for column in range(len(self.column_bands)))

    def tile(self, masks: Tensor, row: int, column: int) -> Tensor:
        """One tile of the resized masks. masks: (N, h, w) any float. Returns (N, rows, columns) float32."""
        rows, columns = self.row_bands[row], self.column_bands[column]
        return self.expand(masks[:, rows.grid, columns.grid], row, column)

    def expand(self, patches: Tensor, row: int, column: int) -> Tensor:
        """`tile`, given just the part of the grid that it needs."""
        rows, columns = self.row_bands[row].weights, self.column_bands[column].weights
        # float64 on CUDA: there a float32 product may run in TF32, with three digits.
        dtype = torch.float64 if self.device.type == "cuda" else torch.float32
        with torch.autocast(self.device.type, enabled=False):
            narrow = patches.to(dtype) @ columns.T.to(dtype)
            return (rows.to(dtype) @ narrow).float()

    def bounds(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Per tile the least and the largest value it can hold: (row bands, column bands, N) float32 each."""
        low, high = [], []
        for rows in self.row_bands:
            strip = masks[:, rows.grid]
            # Rows first: this reads memory in order, and what is left is small.
            least, largest = strip.amin(1).float(), strip.amax(1).float()
            low.append(torch.stack([least[:, columns.grid].amin(1) for columns in self.column_bands]))
            high.append(torch.stack([largest[:, columns.grid].amax(1) for columns in self.column_bands]))
        return _widened(torch.stack(low), torch.stack(high))

    def patch_bounds(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the grid under one tile, (N, h, w): the least and the largest value, (N,) each."""
        flat = patches.flatten(1)
        return _widened(flat.amin(1).float(), flat.amax(1).float())

    def sums(self, patches: Tensor, row: int, column: int) -> Tensor:
        """What `expand` would sum up to over the tile, without making it: (N,) float32."""
        rows, columns = self.row_bands[row].weights.sum(0), self.column_bands[column].weights.sum(0)
        return (patches.float() * rows[:, None] * columns).sum((1, 2))

    def resize(
        self, masks: Tensor, *, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None
    ) -> Tensor:
        """Resized masks, or a window of them: the same numbers. masks: (N, h, w). Returns (N, H, W) float32.

        rows, columns: [start, stop) of the window. For a few masks or small windows: the result is dense.
        """
        top, bottom = rows or (0, self.target_size[0])
        left, right = columns or (0, self.target_size[1])
        result = masks.new_empty((len(masks), bottom - top, right - left), dtype=torch.float32)
        for row, column in self.tiles():
            down, across = self.row_bands[row], self.column_bands[column]
            first, last = max(top, down.start), min(bottom, down.stop)
            start, stop = max(left, across.start), min(right, across.stop)
            if first < last and start < stop:
                tile = self.tile(masks, row, column)
                result[:, first - top : last - top, start - left : stop - left] = tile[
                    :, first - down.start : last - down.start, start - across.start : stop - across.start
                ]
        return result

    def threshold(
        self, mask: Tensor, bounds: Tensor, *, threshold: float = 0.0, with_probs: bool = True
    ) -> ThresholdedMask:
        """The resized mask (h, w) where it exceeds `threshold` (a logit), looking only at tiles where it can.

        bounds: (row bands, column bands), the upper `bounds` of this mask, on the CPU. with_probs: False leaves
        `prob_sum` 0, which is faster.
        """
        active = (bounds > threshold).nonzero()
        if not len(active):
            return ThresholdedMask(None, 0, 0.0)
        (first_row, first_column), (last_row, last_column) = active.amin(0).tolist(), active.amax(0).tolist()
        top, left = self.row_bands[first_row].start, self.column_bands[first_column].start
        size = (self.row_bands[last_row].stop - top, self.column_bands[last_column].stop - left)
        # Stored column by column, as the run-length encoding reads it.
        window = torch.zeros((size[1], size[0]), dtype=torch.bool, device=self.device)
        sums = []
        for row, column in active.tolist():
            rows, columns = self.row_bands[row], self.column_bands[column]
            logits = self.tile(mask[None], row, column)[0]
            inside = logits > threshold
            window[columns.start - left : columns.stop - left, rows.start - top : rows.stop - top] = inside.T
            area = inside.sum(dtype=sum_dtype(self.device))
            sums.append([area, logits.sigmoid_().mul_(inside).sum(dtype=area.dtype) if with_probs else 0 * area])
        area, prob_sum = torch.stack([torch.stack(pair) for pair in sums]).sum(0).tolist()
        if not area:
            return ThresholdedMask(None, 0, 0.0)
        rle = encode_window(window.cpu().numpy().T, origin=(top, left), size=self.target_size)
        return ThresholdedMask(rle, int(area), prob_sum)


def sum_dtype(device: torch.device) -> torch.dtype:
    """What to sum many pixels in: float64, which only MPS does not have."""
    return torch.float32 if device.type == "mps" else torch.float64


def _widened(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    slack = ROUNDING * torch.maximum(low.abs(), high.abs())
    return low - slack, high + slack


def _check_content(input_size: tuple[int, int] | None, content_size: tuple[int, int] | None) -> None:
    if content_size is None:
        return
    if input_size is None:
        raise ValueError("content_size needs input_size: give the size of the padded input that the mask grid spans")
    if min(content_size) < 1 or content_size[0] > input_size[0] or content_size[1] > input_size[1]:
        raise ValueError(
            f"content_size {content_size} does not fit into the padded input {input_size}: both are (height, width)"
        )


def _fitted_tile(tile: tuple[int, int], grid: tuple[int, int], target: tuple[int, int]) -> tuple[int, int]:
    """A longer tile where the target is too narrow to fill it, or thin pictures would fall into thousands of tiles."""
    lengths = []
    for axis, other in ((0, 1), (1, 0)):
        room = tile[other] // min(tile[other], target[other])
        # Each place of the result costs one product per grid place that its band sees.
        cheap = MAX_GRID_PLACES * target[axis] // grid[axis]
        lengths.append(max(tile[axis], min(tile[axis] * room, cheap, MAX_TILE_LENGTH)))
    return lengths[0], lengths[1]


@lru_cache(maxsize=64)
def _bands(
    grid: int, padded: int | None, content: int | None, target: int, length: int, device: torch.device
) -> tuple[Band, ...]:
    """The bands of one axis: `length` target places each, equally wide as far as possible."""
    steps = [_linear_weights(grid, target)]
    if padded is not None:
        indices, values = _linear_weights(grid, padded)
        # Grid places that see only padding say nothing about the picture: its last place goes on instead.
        last = -(-(content or padded) * grid // padded) - 1
        steps = [(indices.clamp(max=last), values), _linear_weights(content or padded, target)]
    count = -(-target // length)
    edges = [round(target * index / count) for index in range(count + 1)]
    bands = []
    for start, stop in pairwise(edges):
        weights, grid_start = torch.eye(stop - start, dtype=torch.float64), start
        for indices, values in reversed(steps):
            weights, grid_start = _through(weights, grid_start, indices, values)
        used = weights.any(0).nonzero().flatten()
        first, last = int(used[0]), int(used[-1]) + 1
        dense = weights[:, first:last].float().to(device)
        bands.append(Band(start, stop, grid_start + first, grid_start + last, dense))
    return tuple(bands)


def _through(weights: Tensor, start: int, indices: Tensor, values: Tensor) -> tuple[Tensor, int]:
    """Carry weights on places [start, ...) of a step's result back to the places of its source."""
    places = slice(start, start + weights.shape[1])
    indices, values = indices[places], values[places]
    first, last = int(indices.min()), int(indices.max())
    step = torch.zeros((len(indices), last - first + 1), dtype=torch.float64)
    step.scatter_add_(1, indices - first, values)
    return weights @ step, first


@lru_cache(maxsize=64)
def _linear_weights(source: int, target: int) -> tuple[Tensor, Tensor]:
    """The taps of `interpolate` from `source` to `target` places: indices (target, 4) and weights, most of them 0.

    They are asked from `interpolate` itself. Its float32 coordinates are off by up to 1e-4 of a place, differently on
    each machine; with the exact ones, steep masks would differ by 1e-3.
    """
    # Pulse k is 1 at every place that is k modulo 4, and no two of four neighbours are alike: so the four
    # responses are the weights of the four places around each target place.
    place = torch.arange(source)
    pulses = (place[None] % 4 == torch.arange(4)[:, None]).float()
    with torch.autocast("cpu", enabled=False):
        responses = functional.interpolate(pulses[None, :, :, None], size=(target, 1), mode="bilinear")[0, :, :, 0]
    centre = ((torch.arange(target, dtype=torch.float64) + 0.5) * source / target - 0.5).floor().long()
    candidates = centre[:, None] + torch.arange(-1, 3)
    weights = responses.T.gather(1, candidates % 4).double()
    # Places outside answer for places inside only when the axis is shorter than four; there they hold no pulse.
    outside = (candidates < 0) | (candidates >= source)
    return candidates.clamp(0, source - 1), weights.masked_fill(outside, 0.0)
