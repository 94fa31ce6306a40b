"""Sizes of pictures that do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_transformers.data.doctor.report import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_transformers.data.doctor.report import SplitReport

# Data sets of photographs have hundreds of sizes, others one: a few, or one with exceptions, is unusual.
FEW = 3
USUAL_SHARE = 0.8
MIN_PICTURES = 10
SLIVER = 6.0
SMALL_SIDE = 16


def check_sizes(split: SplitReport) -> Iterator[Problem]:
    """A few sizes where one is expected, exceptions from the usual one, slivers and stamps."""
    total = sum(split.sizes.values())
    (usual, count), *others = split.sizes.most_common() or [((0, 0), 0)]
    is_judged = total >= MIN_PICTURES or split.num_frames > split.num_usable
    if others and is_judged and (len(split.sizes) <= FEW or count >= USUAL_SHARE * total):
        rest = ", ".join(f"{number} {_size(size)}" for size, number in others[:FEW])
        more = f" and {len(others) - FEW} more sizes" if len(others) > FEW else ""
        yield Problem("mixed_sizes", f"{count} of {total} are {_size(usual)}, others {rest}{more}", split.name)
    for size, number in split.sizes.items():
        if min(size) < SMALL_SIDE or max(size) > SLIVER * min(size):
            yield Problem("mixed_sizes", f"{number} {'are' if number > 1 else 'is'} only {_size(size)}", split.name)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} wide and {size[0]} high"
