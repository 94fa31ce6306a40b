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

# Logits are kept in steps of 1/64, up to +-512: where a mask is enlarged, large ones decide where its edge runs, too.
STEPS = 64
LARGEST = 32767


def pack_masks(logits: Tensor) -> bytes:
    """(Q, h, w) logits as compressed bytes, within 1/128."""
    steps = (logits.detach().float() * STEPS).round().clamp(-LARGEST, LARGEST).to(torch.int16).cpu().numpy()
    # Differences along rows are small; their high and low bytes apart compress best.
    differences = np.diff(steps, axis=-1, prepend=np.int16(0)).astype("<i2")
    return zlib.compress(differences.view(np.uint8).reshape(-1, 2).T.tobytes(), 1)


def unpack_masks(packed: bytes, shape: tuple[int, int, int]) -> Tensor:
    """What `pack_masks` made: (Q, h, w) float32 on the CPU."""
    planes = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(2, -1)
    differences = np.ascontiguousarray(planes.T).view("<i2").reshape(shape)
    return torch.from_numpy(np.cumsum(differences, axis=-1, dtype=np.int16)).float() / STEPS


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
