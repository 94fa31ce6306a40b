"""Where the picture ends and the padding begins, at every stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Content:
    """The pictures of a batch inside their padded input: each lies in the top left corner.

    sizes: (B, 2) int64 (height, width) in input pixels, or None: there is no padding. input_size: the padded size.
    """

    sizes: Tensor | None
    input_size: tuple[int, int]

    @classmethod
    def from_pixel_mask(cls, pixel_mask: Tensor | None, input_size: tuple[int, int]) -> Content:
        """pixel_mask: (B, H, W), 1 where the picture is, a rectangle in the top left corner."""
        if pixel_mask is None:
            return cls(None, input_size)
        is_picture = pixel_mask.bool()
        sizes = torch.stack([is_picture.any(2).sum(1), is_picture.any(1).sum(1)], dim=1)
        return cls(sizes, input_size)

    def repeat(self, num_frames: int) -> Content:
        """The same for B * T frames, clip-major."""
        if self.sizes is None or num_frames == 1:
            return self
        return Content(self.sizes.repeat_interleave(num_frames, dim=0), self.input_size)

    def rows(self, start: int, stop: int) -> Content:
        """The same for some pictures of the batch."""
        return self if self.sizes is None else Content(self.sizes[start:stop], self.input_size)

    def cells(self, size: tuple[int, int]) -> Tensor | None:
        """(B, 2) int64: how many rows and columns of a feature map of `size` see the picture."""
        if self.sizes is None:
            return None
        strides = self.sizes.new_tensor([self.input_size[0] // size[0], self.input_size[1] // size[1]])
        return (self.sizes + strides - 1) // strides

    def extents(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """(B or 1, 2) int64: as `cells`, and all rows and columns where there is no padding."""
        cells = self.cells(size)
        return torch.tensor([size], device=device) if cells is None else cells

    def mask(self, size: tuple[int, int]) -> Tensor | None:
        """(B, 1, h, w) bool, True where a feature map of `size` sees the picture; None: everywhere."""
        cells = self.cells(size)
        if cells is None:
            return None
        rows = torch.arange(size[0], device=cells.device) < cells[:, :1]
        columns = torch.arange(size[1], device=cells.device) < cells[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def zero_padding(self, features: Tensor) -> Tensor:
        """features: (B, D, h, w) with zeros where the padding is."""
        mask = self.mask((features.shape[-2], features.shape[-1]))
        return features if mask is None else features * mask

    def replicate_edges(self, features: Tensor) -> Tensor:
        """features: (B, D, h, w) with the padding filled by the picture's last row and column.

        Bilinear resizing then reads at the picture's edge what it would read if the map ended there.
        """
        height, width = features.shape[-2:]
        cells = self.cells((height, width))
        if cells is None:
            return features
        rows = torch.arange(height, device=features.device).minimum(cells[:, :1] - 1)
        columns = torch.arange(width, device=features.device).minimum(cells[:, 1:] - 1)
        features = features.gather(2, rows[:, None, :, None].expand(-1, features.shape[1], -1, width))
        return features.gather(3, columns[:, None, None, :].expand(-1, features.shape[1], height, -1))

    def as_float(self, batch_size: int, device: torch.device) -> Tensor:
        """(B, 2) float32 (height, width) of each picture in input pixels, padding or not."""
        if self.sizes is not None:
            return self.sizes.float()
        return torch.tensor(self.input_size, dtype=torch.float32, device=device).expand(batch_size, 2)
