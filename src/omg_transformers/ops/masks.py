"""Binary masks: COCO run-length encoding, boxes, areas and overlaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omg_transformers.structures import RLE, Annotation

PIXELS_AT_ONCE = 16384
MaskArray: TypeAlias = Tensor | np.ndarray[Any, Any]


def encode_mask(mask: MaskArray) -> RLE:
    """Run-length encode one mask: (H, W), bool or 0/1; anything non-zero counts as inside."""
    array = _to_bool_array(mask)
    if array.ndim != 2:
        raise ValueError(f"mask has shape {array.shape}: expected (H, W); give frames (T, H, W) to encode_masks")
    return _encode(array)


def encode_masks(masks: MaskArray) -> tuple[RLE | None, ...]:
    """Run-length encode the frames of one clip, (T, H, W); an empty frame becomes None (absent)."""
    array = _to_bool_array(masks)
    if array.ndim != 3:
        raise ValueError(f"masks has shape {array.shape}: expected (T, H, W); give one picture as mask[None]")
    return tuple(_encode(frame) if frame.any() else None for frame in array)


def encode_window(mask: MaskArray, *, origin: tuple[int, int], size: tuple[int, int]) -> RLE:
    """Run-length encode a mask of `size` that is False outside a window: `mask` (h, w) with its top left at `origin`.

    origin: (row, column). Costs as much as the window is wide, not the whole picture.
    """
    array = _to_bool_array(mask)
    (top, left), (height, width) = origin, size
    rows, columns = array.shape
    if top < 0 or left < 0 or top + rows > height or left + columns > width:
        raise ValueError(f"a window of {array.shape} at {origin} leaves size {size}: origin is (row, column)")
    # RLE runs down the columns, so only the window's own columns need their full height.
    band = np.zeros((columns, height), np.bool_)
    band[:, top : top + rows] = array.T
    flat = band.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs: list[int] = np.diff(changes, prepend=0, append=flat.size).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    before, after = left * height, (width - left - columns) * height
    runs[0] += before
    if len(runs) % 2:
        runs[-1] += after
    elif after:
        runs.append(after)
    return _from_runs(runs, size)


def decode_rle(rle: RLE) -> Tensor:
    """The mask of an RLE: (H, W) bool on the CPU."""
    # copy: pycocotools returns Fortran order, and a transposed view would slow every later step down.
    return torch.from_numpy(np.ascontiguousarray(coco_mask.decode(_with_bytes(rle)))).bool()


def decode_rles(rles: Sequence[RLE | None], size: tuple[int, int]) -> Tensor:
    """The masks of one segment through a clip: (T, H, W) bool; None is an empty frame. All must have `size`."""
    masks = torch.zeros((len(rles), *size), dtype=torch.bool)
    for frame, rle in enumerate(rles):
        if rle is None:
            continue
        if tuple(rle["size"]) != tuple(size):
            raise ValueError(f"the RLE of frame {frame} has size {tuple(rle['size'])}, expected {tuple(size)}")
        masks[frame] = decode_rle(rle)
    return masks


def stack_rles(clips: Sequence[Sequence[RLE | None]], num_frames: int, size: tuple[int, int]) -> Tensor:
    """The masks of N segments: (N, T, H, W) bool; (0, T, H, W) without segments."""
    if not clips:
        return torch.zeros((0, num_frames, *size), dtype=torch.bool)
    return torch.stack([decode_rles(rles, size) for rles in clips])


def union_of_rles(clips: Sequence[Sequence[RLE | None]], num_frames: int, size: tuple[int, int]) -> Tensor:
    """Where any of N segments is: (T, H, W) bool."""
    union = torch.zeros((num_frames, *size), dtype=torch.bool)
    for rles in clips:
        union |= decode_rles(rles, size)
    return union


def join_frames(rles: Sequence[RLE | None], size: tuple[int, int]) -> RLE:
    """One RLE for a clip: its frames side by side, (H, T * W), so that overlaps of clips are overlaps of pictures."""
    if len(rles) == 1 and rles[0] is not None:
        return rles[0]
    height, width = size
    runs = [0]
    for rle in rles:
        frame = [height * width] if rle is None else _runs_of(rle)
        # The runs alternate: a frame starts outside, so it goes on with an outside run or opens one.
        if len(runs) % 2:
            runs[-1] += frame[0]
            runs.extend(frame[1:])
        elif frame[0]:
            runs.extend(frame)
        else:
            runs[-1] += frame[1]
            runs.extend(frame[2:])
    return _from_runs(runs, (height, width * len(rles)))


def rle_area(rle: RLE | None) -> int:
    """Number of pixels inside; 0 for None."""
    return 0 if rle is None else int(coco_mask.area(_with_bytes(rle)))


def void_and_crowds(annotation: Annotation) -> Tensor:
    """Where nobody said what single objects there are: (T, H, W) bool."""
    crowds = [segment.masks for segment in annotation.segments if segment.is_crowd]
    return union_of_rles([annotation.void, *crowds], annotation.num_frames, annotation.size)


def rle_box(rle: RLE | None) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) with exclusive right and bottom edges; zeros for None and for an empty mask."""
    if rle is None or rle_area(rle) == 0:
        return (0.0, 0.0, 0.0, 0.0)
    x, y, width, height = (float(value) for value in coco_mask.toBbox(_with_bytes(rle)))
    return (x, y, x + width, y + height)


def rle_iou(first: Sequence[RLE], second: Sequence[RLE], *, is_crowd: Sequence[bool] | None = None) -> Tensor:
    """Overlaps of all pairs: (N, M) float64, 0 where both are empty.

    is_crowd: one flag per mask of `second`; the overlap with a crowd is intersection over the area of `first`.
    """
    if not first or not second:
        return torch.zeros((len(first), len(second)), dtype=torch.float64)
    crowd = [int(flag) for flag in is_crowd] if is_crowd is not None else [0] * len(second)
    overlaps = coco_mask.iou([_with_bytes(rle) for rle in first], [_with_bytes(rle) for rle in second], crowd)
    return torch.from_numpy(np.nan_to_num(np.asarray(overlaps, dtype=np.float64)))


def boxes_of_masks(masks: Tensor) -> Tensor:
    """Tight boxes (..., 4) xyxy float32 of masks (..., H, W), right and bottom edges exclusive; empty -> zeros."""
    height, width = masks.shape[-2:]
    left, right = _extent(masks.any(-2), width)
    top, bottom = _extent(masks.any(-1), height)
    return torch.stack([left, top, right, bottom], -1).float()


def mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of all pairs of masks (N, ...) and (M, ...) of equal size: (N, M) float32, 0 where both are empty."""
    if first.shape[1:] != second.shape[1:]:
        raise ValueError(f"masks of {tuple(first.shape[1:])} and {tuple(second.shape[1:])} differ in size: resize one")
    left, right = first.flatten(1), second.flatten(1)
    intersection = torch.zeros((len(left), len(right)), dtype=torch.float32, device=left.device)
    # A stretch of pixels at a time: as floats all masks at once would be the largest thing in memory.
    for start in range(0, left.shape[1], PIXELS_AT_ONCE):
        pixels = slice(start, start + PIXELS_AT_ONCE)
        intersection += left[:, pixels].float() @ right[:, pixels].float().T
    union = left.sum(1)[:, None] + right.sum(1)[None] - intersection
    return intersection / union.clamp(min=1)


def _extent(is_inside: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """First and last + 1 place of True along the last axis; (0, 0) where there is none."""
    if length == 0:
        empty = torch.zeros(is_inside.shape[:-1], dtype=torch.long, device=is_inside.device)
        return empty, empty
    flags = is_inside.to(torch.uint8)
    first = flags.argmax(-1)
    last = length - flags.flip(-1).argmax(-1)
    return first, last * is_inside.any(-1)


def _encode(mask: np.ndarray[Any, Any]) -> RLE:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"]}


def _from_runs(runs: list[int], size: tuple[int, int]) -> RLE:
    rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    return {"size": list(size), "counts": rle["counts"]}


def _to_bool_array(mask: MaskArray) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    # Other than 0/1, pycocotools would see each grey level as a change of colour.
    return array if array.dtype == np.bool_ else array != 0


def _with_bytes(rle: RLE) -> dict[str, Any]:
    counts: Any = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def _runs_of(rle: RLE) -> list[int]:
    """Run lengths, outside first, from COCO's compressed string (5 bits per byte, every third run is a difference)."""
    runs: list[int] = []
    value = shift = 0
    for byte in rle["counts"]:
        chunk = byte - 48
        value |= (chunk & 0x1F) << shift
        shift += 5
        if not chunk & 0x20:
            if chunk & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
