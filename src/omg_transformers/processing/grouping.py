"""Which pictures may share a batch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def group_by_key(keys: Sequence[Hashable]) -> list[list[int]]:
    """Indices of equal keys together, in order of first appearance; each group may form one batch.

    For a backbone that cannot take padding, the key is the input (height, width) of each picture alone,
    `OMGSegImageProcessor.padded_size`: then no picture of a group gets extra padding.
    """
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())
