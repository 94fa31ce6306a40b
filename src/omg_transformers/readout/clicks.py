"""What a person clicked holds: in the final mask every click lies on the side that it names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from omg_transformers.ops.masks import decode_rle, encode_mask, encode_window, rle_iou
from omg_transformers.structures import MASK_STRIDE, NO_PROMPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from omg_transformers.structures import RLE, QueryOutput, Segments

# Around a click its own label holds: share of the picture's longer side.
DISK_RADIUS = 0.01
# Of a pixel: what moving points to the padded input and back may cost.
ROUNDING = 1e-3


def hold_clicks(
    results: Sequence[Segments], output: QueryOutput, points: Tensor, labels: Tensor | None
) -> list[Segments]:
    """The same results, but where a mask and a click contradict each other in the first frame, the click is right.

    It is right in a small disk, as far as no click of the other kind is nearer; of two in one pixel the later one is.
    results: of a head for prompts; `info["queries"]` says whose answer each segment is, others stay as they are.
    output: what they were read from. points: (B, N, P, 2) in pixels of the padded input; labels: (B, N, P), 1 inside
    (also without labels), 0 outside, -10 no point; as the model takes them, for N objects with one or more queries.
    """
    if labels is None:
        labels = torch.ones(points.shape[:-1], dtype=torch.int64)
    held = []
    for index, segments in enumerate(results):
        queries = segments.info.get("queries")
        if segments.rles is None or queries is None:
            held.append(segments)
            continue
        places = _places(points[index].cpu(), _content(output, index), segments.size)
        per_object = output.mask_logits.shape[1] // len(places)
        objects = [int(query) // per_object for query in queries.tolist()]
        flags = labels[index].cpu().numpy()
        rles = tuple(
            (_held(rle[0], places[number], flags[number], segments.size), *rle[1:])
            for rle, number in zip(segments.rles, objects, strict=True)
        )
        held.append(replace(segments, rles=rles))
    return held


def _content(output: QueryOutput, index: int) -> tuple[int, int]:
    """(height, width) of the picture inside the padded input."""
    if output.content_sizes is not None:
        return output.content_sizes[index]
    height, width = output.mask_logits.shape[-2:]
    return output.input_size or (height * MASK_STRIDE, width * MASK_STRIDE)


def _places(points: Tensor, content: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int64]:
    """(N, P, 2): (row, column) of the pixel that each point (x, y) of the input lies in."""
    scale = torch.tensor([size[1] / content[1], size[0] / content[0]], dtype=torch.float64)
    places = (points.double() * scale + ROUNDING).floor().long().flip(-1)
    limits = torch.tensor([size[0] - 1, size[1] - 1])
    found: NDArray[np.int64] = places.clamp(min=0).minimum(limits).numpy()
    return found


def _held(rle: RLE | None, places: NDArray[np.int64], labels: NDArray[np.int64], size: tuple[int, int]) -> RLE | None:
    """A mask in which the clicks (P, 2) of its object hold; None: an empty one."""
    is_click = labels != NO_PROMPT
    latest = dict(zip(map(tuple, places[is_click].tolist()), (labels[is_click] == 1).tolist(), strict=True))
    pixels = [encode_window(np.ones((1, 1), np.bool_), origin=place, size=size) for place in latest]
    # Mostly all hold: telling so from the run lengths costs a third of decoding the mask.
    is_held = rle_iou(pixels, [] if rle is None else [rle], is_crowd=[True]).sum(1) > 0
    wrong = [place for place, held in zip(latest, is_held.tolist(), strict=True) if held != latest[place]]
    if not wrong:
        return rle
    mask = np.zeros(size, np.bool_) if rle is None else decode_rle(rle).numpy()
    radius = DISK_RADIUS * max(size)
    reach = math.ceil(radius)
    for row, column in wrong:
        window = slice(max(row - reach, 0), row + reach + 1), slice(max(column - reach, 0), column + reach + 1)
        rows, columns = np.arange(size[0])[window[0], None], np.arange(size[1])[window[1]]
        others = [place for place, is_inside in latest.items() if is_inside != latest[row, column]]
        own = (rows - row) ** 2 + (columns - column) ** 2
        is_own = own <= radius**2
        for other in others:
            is_own &= own <= (rows - other[0]) ** 2 + (columns - other[1]) ** 2
        mask[window][is_own] = latest[row, column]
    return encode_mask(mask) if mask.any() else None
