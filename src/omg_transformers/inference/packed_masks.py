"""Mask logits of single frames in a few kilobytes, and frames on disk until they are wanted again."""

from __future__ import annotations

import tempfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# Logits are kept in steps of 1/16 up to +-7.9: probabilities within 0.008, and beyond 0.9996 all are alike.
STEPS = 16
LARGEST = 127


def pack_masks(logits: Tensor) -> bytes:
    """(Q, h, w) logits as compressed bytes: one per cell, in steps of 1/16."""
    steps = (logits.detach().float() * STEPS).round().clamp(-LARGEST, LARGEST).to(torch.int8).cpu().numpy()
    # Differences along rows: neighbours are alike, and zeros compress best.
    steps = np.diff(steps, axis=-1, prepend=np.int8(0))
    return zlib.compress(steps.tobytes(), 1)


def unpack_masks(packed: bytes, shape: tuple[int, int, int]) -> Tensor:
    """What `pack_masks` made: (Q, h, w) float32 on the CPU."""
    steps = np.frombuffer(zlib.decompress(packed), dtype=np.int8).reshape(shape)
    return torch.from_numpy(np.cumsum(steps, axis=-1, dtype=np.int8)).float() / STEPS


class FrameSpool:
    """Frames of one size in a temporary file: a one-way stream of any length can be read a second time."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the spool
        self._shape: tuple[int, ...] = ()

    def append(self, frame: np.ndarray[Any, Any]) -> None:
        """Keep one frame (H, W, 3) uint8."""
        self._shape = frame.shape
        self._file.write(np.ascontiguousarray(frame).tobytes())

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        """All frames from the first on."""
        self._file.seek(0)
        size = int(np.prod(self._shape))
        while data := self._file.read(size):
            yield np.frombuffer(data, dtype=np.uint8).reshape(self._shape)
