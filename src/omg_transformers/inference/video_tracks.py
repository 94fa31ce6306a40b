"""Which object of a video has which id, from its first frame to its last."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from omg_transformers.structures import Segments

CLASS = -1
BEST = -1


class Tracks:
    """Ids of what the queries of a video have shown. A query that shows nothing for `horizon` frames loses its id.

    A result says in `info["queries"]` which query (N,) each segment comes from, -1 where it belongs to its class
    instead (joined stuff, whose id stays for good). Results that do not say so keep the ids they have.
    """

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self.next_id = 1
        # (query, label) -> id and last frame. The label is BEST for the best segment of a query.
        self._rows: dict[tuple[int, int], tuple[int, int]] = {}

    def live_queries(self, frame: int, num_queries: int) -> Tensor:
        """(Q,) bool: the queries whose object may still return in this frame."""
        is_live = torch.zeros(num_queries, dtype=torch.bool)
        for (query, _), (_, last) in self._rows.items():
            if query != CLASS and frame - last <= self.horizon + 1:
                is_live[query] = True
        return is_live

    def assign(self, segments: Segments, frame: int) -> Segments:
        """The segments of one frame under the ids of the video."""
        if "queries" not in segments.info:
            return segments
        seen: set[int] = set()
        ids = []
        for query, label in zip(segments.info["queries"].tolist(), segments.labels.tolist(), strict=True):
            key = (query, BEST if query != CLASS and query not in seen else label)
            seen.add(query)
            ids.append(self._id_of(key, frame))
        self._forget(frame)
        return _renumbered(segments, torch.tensor(ids, dtype=torch.int64))

    def rename(self, new_labels: Mapping[int, int]) -> None:
        """Go on with other names. new_labels: old label -> new one; joined stuff of other labels has a new id."""
        renamed = {}
        for (query, label), row in self._rows.items():
            if query != CLASS and label == BEST:
                renamed[query, label] = row
            elif label in new_labels:
                renamed[query, new_labels[label]] = row
        self._rows = renamed

    def to_tensor(self) -> Tensor:
        """(N, 4) int64: query, label, id, last frame."""
        rows = [(*key, *value) for key, value in self._rows.items()]
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)

    @classmethod
    def from_tensor(cls, rows: Tensor, *, horizon: int, next_id: int) -> Tracks:
        """The tracks that `to_tensor` described."""
        tracks = cls(horizon)
        tracks.next_id = next_id
        tracks._rows = {(query, label): (number, last) for query, label, number, last in rows.tolist()}
        return tracks

    def _id_of(self, key: tuple[int, int], frame: int) -> int:
        number, last = self._rows.get(key, (0, frame))
        if number == 0 or (key[0] != CLASS and frame - last > self.horizon + 1):
            number = self.next_id
            self.next_id += 1
        self._rows[key] = (number, frame)
        return number

    def _forget(self, frame: int) -> None:
        self._rows = {
            key: row for key, row in self._rows.items() if key[0] == CLASS or frame - row[1] <= self.horizon + 1
        }


def _renumbered(segments: Segments, ids: Tensor) -> Segments:
    id_map = segments.id_map
    if id_map is not None:
        table = torch.zeros(max([0, *segments.ids.tolist()]) + 1, dtype=torch.int32)
        table[segments.ids] = ids.int()
        id_map = table[id_map.long()]
    return dataclasses.replace(segments, ids=ids, id_map=id_map)
