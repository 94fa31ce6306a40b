"""The matcher against recorded costs and assignments of the original."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from omg_transformers.training.matcher import assign, class_costs, mask_costs

CASES = [("", "gt_labels"), ("_ignore", "gt_labels_ignore")]


@pytest.fixture(scope="module")
def stored(golden_model):
    return load_file(golden_model / "matcher.safetensors")


def _class_costs(stored, labels: str, *, is_flexible: bool):
    scores = stored["scores"]
    return 2.0 * class_costs(scores[:, :-1], scores[:, -1], stored[labels], is_flexible=is_flexible)


def _mask_costs(stored):
    entropy, dice = mask_costs(stored["mask_logits"], stored["gt_masks"].float())
    return 5.0 * entropy, 5.0 * dice


@pytest.mark.parametrize(("suffix", "labels"), CASES)
@pytest.mark.parametrize("kind", ["flexible", "plain"])
def test_class_costs_equal_the_original(stored, suffix, labels, kind):
    expected = stored[f"cost{suffix}.cls_{kind}"]
    found = _class_costs(stored, labels, is_flexible=kind == "flexible")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", ["", "_ignore"])
def test_mask_costs_equal_the_original(stored, suffix):
    entropy, dice = _mask_costs(stored)
    torch.testing.assert_close(entropy, stored[f"cost{suffix}.mask"], rtol=0, atol=1e-4)
    torch.testing.assert_close(dice, stored[f"cost{suffix}.dice"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("suffix", "labels"), CASES)
@pytest.mark.parametrize("kind", ["flexible", "plain"])
def test_assignments_equal_the_original(stored, suffix, labels, kind):
    entropy, dice = _mask_costs(stored)
    ((queries, targets),) = assign([_class_costs(stored, labels, is_flexible=kind == "flexible") + entropy + dice])
    found = torch.zeros(len(stored["scores"]), dtype=torch.int64)
    found[queries] = targets + 1
    assert torch.equal(found, stored[f"assigned{suffix}.{kind}"])
