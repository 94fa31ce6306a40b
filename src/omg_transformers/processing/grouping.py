"""Which pictures may share a batch when a backbone cannot take padding."""

from __future__ import annotations

from collections.abc import Sequence

Size = tuple[int, int]


def group_by_size(sizes: Sequence[Size]) -> list[list[int]]:
    """Indices of equal sizes together, in order of first appearance; each group makes one batch without extra padding.

    sizes: the input (height, width) of each picture alone, see `OMGSegImageProcessor.padded_size`.
    """
    groups: dict[Size, list[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(size, []).append(index)
    return list(groups.values())
