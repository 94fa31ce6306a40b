"""Random regions that tile a picture: the raw material of small test scenes."""

from __future__ import annotations

import torch
from torch import Tensor


def random_partition(num_regions: int, size: tuple[int, int], *, seed: int) -> Tensor:
    """Cut a picture into regions around random centres: (N, H, W) bool, each pixel in exactly one, none empty.

    There are fewer than `num_regions` when the picture has fewer pixels.
    """
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randperm(height * width, generator=generator)[:num_regions]
    rows, columns = torch.arange(height), torch.arange(width)
    down = (rows[None] - (centres // width)[:, None]).abs()
    across = (columns[None] - (centres % width)[:, None]).abs()
    nearest = (down[:, :, None] + across[:, None, :]).argmin(0)
    return nearest[None] == torch.arange(len(centres))[:, None, None]
