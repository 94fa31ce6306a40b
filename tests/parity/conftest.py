"""Reference tensors of the original OMG-Seg and the model that its weights make."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from omg_transformers.model import OMGSegModel
from omg_transformers.model.convert import convert_state_dict


@dataclass(frozen=True)
class Golden:
    """One reference file: its tensors by name and what its json says of them."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def count(self, pattern: str) -> int:
        """How many tensor names match, so that a loop over them cannot pass by finding none."""
        return sum(re.fullmatch(pattern, name) is not None for name in self.tensors)

    def indices(self, pattern: str) -> list[int]:
        """The sorted distinct numbers that stand where `pattern` has its first group."""
        found = {int(match[1]) for name in self.tensors if (match := re.fullmatch(pattern, name))}
        assert found, f"no tensor matches {pattern}"
        return sorted(found)


@pytest.fixture(scope="session")
def golden(golden_model: Path) -> Callable[[str], Golden]:
    def load(name: str) -> Golden:
        described = json.loads((golden_model / f"{name}.json").read_text())
        return Golden(load_file(golden_model / f"{name}.safetensors"), described.get("meta", {}))

    return load


@pytest.fixture(scope="session")
def official_weights(golden_model: Path) -> dict[str, Tensor]:
    return load_file(golden_model / "weights.safetensors")


@pytest.fixture(scope="session")
def model(official_weights: dict[str, Tensor]) -> OMGSegModel:
    config, state_dict = convert_state_dict(official_weights)
    model = OMGSegModel(config)
    model.load_state_dict(state_dict)
    return model.eval()


@pytest.fixture(scope="session")
def class_embeds(golden: Callable[[str], Golden]) -> Tensor:
    return golden("class_embed")["class_embed"]


def assert_close(actual: Tensor, expected: Tensor, atol: float) -> None:
    """Absolute tolerance only: that is how the reference's own noise was measured."""
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=atol)
