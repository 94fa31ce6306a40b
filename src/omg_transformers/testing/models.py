"""A small random model for tests and examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from omg_transformers.model import OMGSegModel


def tiny_model(*, seed: int = 0, **overrides: Any) -> OMGSegModel:
    """A random `OMGSegModel` of `OMGSegConfig.tiny(**overrides)` in evaluation mode; the same weights for a seed.

    TypeError: an override that `OMGSegConfig` does not have, which would change nothing.
    """
    from omg_transformers.model import OMGSegConfig, OMGSegModel

    if unknown := sorted(name for name in overrides if not hasattr(OMGSegConfig, name)):
        raise TypeError(f"tiny_model got {', '.join(unknown)}: OMGSegConfig has no such setting")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return OMGSegModel(OMGSegConfig.tiny(**overrides)).eval()
