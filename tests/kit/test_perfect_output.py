"""What `perfect_output` says for targets with and without classes."""

import pytest
import torch

from omg_transformers.structures import QueryTargets
from omg_transformers.testing import perfect_output


@pytest.fixture
def targets():
    masks = torch.zeros(2, 1, 2, 3, dtype=torch.bool)
    masks[0, 0, 0], masks[1, 0, 1] = True, True
    return QueryTargets(torch.tensor([1, -1]), masks)


def test_the_first_queries_answer_the_targets_in_order(targets):
    output = perfect_output(targets, num_classes=3, num_queries=4)
    assert output.class_logits.argmax(-1).tolist() == [[1, 3, 3, 3]]
    assert torch.equal(output.mask_logits[0, :2] > 0, targets.masks)


def test_spare_queries_are_empty_and_of_no_quality(targets):
    output = perfect_output(targets, num_classes=3, num_queries=4)
    assert not (output.mask_logits[0, 2:] > 0).any()
    assert (output.iou_logits > 0).tolist() == [[True, True, False, False]]


def test_there_is_one_query_per_target_when_no_number_is_asked_for(targets):
    assert perfect_output(targets, num_classes=3).mask_logits.shape == (1, 2, 1, 2, 3)


def test_class_logits_are_left_out_for_a_head_without_classes(targets):
    assert perfect_output(targets, num_classes=3, has_classes=False).class_logits is None


def test_fewer_queries_than_targets_are_refused(targets):
    with pytest.raises(ValueError, match=r"num_queries is 1 for 2 targets"):
        perfect_output(targets, num_classes=3, num_queries=1)
