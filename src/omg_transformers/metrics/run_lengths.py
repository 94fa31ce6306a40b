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


def faults_of_counts(counts: Sequence[bytes], num_pixels: Sequence[int]) -> dict[int, str]:
    """What is wrong with compressed `counts` for masks of `num_pixels` pixels: {index: reason}, empty if all are right.

    pycocotools reads a truncated or foreign string without a word and gives another mask.
    """
    faults = {index: "counts is empty" for index, text in enumerate(counts) if not text}
    kept = [index for index, text in enumerate(counts) if text]
    if kept and not _is_complete(b"".join(counts), [counts[index][-1] for index in kept]):
        foreign = [index for index in kept if not _is_complete(counts[index], [counts[index][-1]])]
        faults.update(dict.fromkeys(foreign, "counts is truncated or not a compressed run-length string"))
        kept = [index for index in kept if index not in faults]
    if kept:
        covered, is_negative = _covered_pixels([counts[index] for index in kept])
        for row, index in enumerate(kept):
            if is_negative[row]:
                faults[index] = "counts holds a negative run"
            elif covered[row] != num_pixels[index]:
                faults[index] = f"counts covers {covered[row]} of {num_pixels[index]} pixels"
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
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int16) - FIRST_CHARACTER
    last = np.array(last_characters) - FIRST_CHARACTER
    if codes.min() < 0 or codes.max() > 63 or (last & MORE_BIT).any():
        return False
    ends = np.flatnonzero(~codes & MORE_BIT)
    return bool(np.diff(ends, prepend=-1).max() <= MAX_CHARACTERS)


def _covered_pixels(counts: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Sum of the runs of each mask, and whether one is negative."""
    lengths = np.array([len(text) for text in counts])
    codes = np.frombuffer(b"".join(counts), dtype=np.uint8).astype(np.int64) - FIRST_CHARACTER
    ends = np.flatnonzero(~codes & MORE_BIT)
    starts = np.concatenate([[0], ends[:-1] + 1])
    shift = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))
    values = np.add.reduceat((codes & VALUE_BITS) << shift, starts)
    values -= np.where(codes[ends] & SIGN_BIT, np.int64(1) << (shift[ends] + 5), 0)
    # From the fourth run on, a value is the difference to the run before the last.
    num_runs = np.add.reduceat((~codes & MORE_BIT) >> 5, np.cumsum(lengths) - lengths)
    mask = np.repeat(np.arange(len(counts)), num_runs)
    place = np.arange(len(values)) - np.repeat(np.cumsum(num_runs) - num_runs, num_runs)
    runs = values.copy()
    for chain in (place % 2 == 1, (place % 2 == 0) & (place > 0)):
        members = np.flatnonzero(chain)
        sums = np.cumsum(values[members])
        first = np.flatnonzero(place[members] <= 2)
        before = np.concatenate([[0], sums])[first]
        runs[members] = sums - np.repeat(before, np.diff(first, append=len(members)))
    covered = np.zeros(len(counts), dtype=np.int64)
    np.add.at(covered, mask, runs)
    is_negative = np.zeros(len(counts), dtype=bool)
    is_negative[mask[runs < 0]] = True
    return covered, is_negative
