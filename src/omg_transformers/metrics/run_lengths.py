"""COCO's compressed run lengths, checked for a whole file at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# A character holds 5 bits of a number, lowest first; bit 6 says that more follow, bit 5 of the last one is the sign.
FIRST_CHARACTER = 48
VALUE_BITS, MORE_BIT, SIGN_BIT = 0x1F, 0x20, 0x10
# 7 characters hold 35 bits: more than any picture has pixels.
MAX_CHARACTERS = 7
# pycocotools 2.0.11 keeps the number of masks in a byte: more raise OverflowError under numpy 2.
MASKS_PER_CALL = 255
# So that what is checked stays in the processor's cache.
MASKS_PER_PIECE = 256


def faults_of_counts(counts: Sequence[bytes], num_pixels: Sequence[int]) -> dict[int, str]:
    """What is wrong with compressed `counts` for masks of `num_pixels` pixels: {index: reason}, empty if all are right.

    pycocotools reads a truncated or foreign string without a word and gives another mask.
    """
    faults = {}
    for start in range(0, len(counts), MASKS_PER_PIECE):
        piece = slice(start, start + MASKS_PER_PIECE)
        faults.update({start + row: reason for row, reason in _faults(counts[piece], num_pixels[piece]).items()})
    return faults


def _faults(counts: Sequence[bytes], num_pixels: Sequence[int]) -> dict[int, str]:
    faults = {index: "counts is empty" for index, text in enumerate(counts) if not text}
    kept = [index for index, text in enumerate(counts) if text]
    if kept and not _is_complete(b"".join(counts), [counts[index][-1] for index in kept]):
        foreign = [index for index in kept if not _is_complete(counts[index], [counts[index][-1]])]
        faults.update(dict.fromkeys(foreign, "counts is truncated or not a compressed run-length string"))
        kept = [index for index in kept if index not in faults]
    if kept:
        covered, is_negative = _covered_pixels([counts[index] for index in kept])
        expected = np.array([num_pixels[index] for index in kept])
        for row in np.flatnonzero(is_negative | (covered != expected)).tolist():
            wrong = f"counts covers {covered[row]} of {expected[row]} pixels"
            faults[kept[row]] = "counts holds a negative run" if is_negative[row] else wrong
    return faults


def counts_as_bytes(counts: Any) -> bytes | None:
    """Compressed counts as bytes; None for another kind (a list of plain runs) or characters outside ASCII."""
    if isinstance(counts, bytes):
        return counts
    return counts.encode("ascii") if isinstance(counts, str) and counts.isascii() else None


def areas_of(rles: Sequence[Any]) -> NDArray[np.int64]:
    """Pixels inside each mask, (N,); the counts are bytes."""
    calls = range(0, len(rles), MASKS_PER_CALL)
    parts = [np.asarray(coco_mask.area(rles[start : start + MASKS_PER_CALL]), dtype=np.int64) for start in calls]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _is_complete(text: bytes, last_characters: Sequence[int]) -> bool:
    """Known characters only, and no number goes on after the end of its mask or for longer than one can be."""
    codes = _codes(text)
    last = np.array(last_characters) - FIRST_CHARACTER
    # Characters before the first wrap around to large codes.
    if codes.max() > 63 or (last & MORE_BIT).any():
        return False
    ends = np.flatnonzero(codes < MORE_BIT)
    return bool(np.diff(ends, prepend=-1).max() <= MAX_CHARACTERS)


def _codes(text: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(text, dtype=np.uint8) - np.uint8(FIRST_CHARACTER)


def _covered_pixels(counts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Sum of the runs of each mask, and whether one is negative."""
    codes = _codes(b"".join(counts))
    ends = np.flatnonzero(codes < MORE_BIT)
    values = _values(codes, ends)
    # Place of each mask's first run among all runs.
    last_characters = np.cumsum([len(text) for text in counts]) - 1
    behind = np.searchsorted(ends, last_characters) + 1
    first = np.append(0, behind[:-1])
    # From the fourth run on, a value is the difference to the run before the last: sums over every second value are
    # the runs, less what the sums were where their mask began.
    sums = np.zeros(len(values) + 2, dtype=np.int64)
    for parity in (0, 1):
        np.cumsum(values[parity::2], out=sums[2 + parity :: 2])
    runs = sums[2:] - np.repeat(sums[first + 1], behind - first)
    is_even = (np.arange(len(values)) - np.repeat(first, behind - first)) & 1 == 0
    runs[is_even] += np.repeat(sums[first + 1] - sums[first + 2], (behind - first + 1) // 2)
    runs[first] = values[first]
    return np.add.reduceat(runs, first), np.minimum.reduceat(runs, first) < 0


def _values(codes: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.int64]:
    """The numbers whose last characters are at `ends`."""
    starts = np.append(0, ends[:-1] + 1)
    num_characters = ends - starts + 1
    values = (codes[starts] & VALUE_BITS).astype(np.int64)
    place = 1
    longer = np.flatnonzero(num_characters > place)
    while len(longer):
        values[longer] |= (codes[starts[longer] + place] & VALUE_BITS).astype(np.int64) << 5 * place
        place += 1
        longer = longer[num_characters[longer] > place]
    is_negative = np.flatnonzero(codes[ends] & SIGN_BIT)
    values[is_negative] -= np.int64(1) << 5 * num_characters[is_negative]
    return values
