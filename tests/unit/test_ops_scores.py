"""Class probabilities and the choice among overlapping masks."""

from __future__ import annotations

import pytest
import torch

from omg_transformers.ops.regions import random_partition
from omg_transformers.ops.scores import class_probs, suppress_overlaps


def test_class_probs_are_float32_and_sum_to_one():
    probs = class_probs(torch.tensor([[[0.0, 0.0, 0.0, 0.0]]]).bfloat16(), 3)
    assert probs.dtype == torch.float32
    assert probs.tolist() == [[[0.25] * 4]]


def test_missing_class_logits_say_what_to_pass():
    with pytest.raises(ValueError, match=r"class_logits is None.*class_embeds"):
        class_probs(None, 3)


def test_another_number_of_classes_is_refused():
    with pytest.raises(ValueError, match="is_thing has 4 flags but class_logits holds 3 classes"):
        class_probs(torch.zeros(1, 2, 4), 4)


def test_a_mask_falls_to_the_better_one_it_overlaps():
    masks = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 1]]).bool()
    assert suppress_overlaps(masks, torch.tensor([0.5, 0.9, 0.1]), 0.6).tolist() == [1, 2]
    assert suppress_overlaps(masks, torch.tensor([0.5, 0.9, 0.1]), 0.7).tolist() == [0, 1, 2]


def test_a_suppressed_mask_suppresses_nothing():
    # The middle one overlaps both neighbours by 1/2; they do not overlap each other enough.
    masks = torch.tensor([[1, 1, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 1]]).bool()
    assert suppress_overlaps(masks, torch.tensor([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]


def test_no_masks_stay_no_masks():
    assert suppress_overlaps(torch.zeros(0, 4, dtype=torch.bool), torch.zeros(0), 0.5).tolist() == []


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (33, 47)])
def test_a_partition_covers_each_pixel_once_and_has_no_empty_part(size):
    parts = random_partition(6, size, seed=0)
    assert len(parts) == min(6, size[0] * size[1])
    assert (parts.sum(0) == 1).all()
    assert parts.flatten(1).any(1).all()
