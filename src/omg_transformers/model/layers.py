"""Layers that differ from PyTorch's in how they start."""

from torch import nn


class ZeroLinear(nn.Linear):
    """A linear layer whose weights start at zero."""


class ZeroConvolution(nn.Conv2d):
    """A convolution whose weights start at zero: what it is added to starts unchanged."""
