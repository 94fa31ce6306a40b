"""Costs and the one-to-one assignment."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from omg_transformers.training.matcher import assign, class_costs, mask_costs


def test_the_mask_cost_is_the_mean_cross_entropy():
    logits, masks = torch.randn(3, 10), (torch.rand(2, 10) > 0.5).float()
    entropy, _ = mask_costs(logits, masks)
    expected = F.binary_cross_entropy_with_logits(logits[1], masks[0])
    assert entropy[1, 0].item() == pytest.approx(expected.item(), abs=1e-5)


def test_weights_of_one_change_nothing():
    logits, masks = torch.randn(3, 10), (torch.rand(2, 10) > 0.5).float()
    for plain, weighted in zip(mask_costs(logits, masks), mask_costs(logits, masks, torch.ones(10)), strict=True):
        torch.testing.assert_close(plain, weighted)


def test_unknown_places_change_no_cost():
    logits, masks = torch.randn(3, 10), (torch.rand(2, 10) > 0.5).float()
    weights = torch.tensor([1.0] * 6 + [0.0] * 4)
    changed = logits.clone()
    changed[:, 6:] += 100.0
    for one, other in zip(mask_costs(logits, masks, weights), mask_costs(changed, masks, weights), strict=True):
        assert torch.equal(one, other)


def test_unknown_places_cost_the_same_as_leaving_them_out():
    logits, masks = torch.randn(3, 10), (torch.rand(2, 10) > 0.5).float()
    weights = torch.tensor([1.0] * 6 + [0.0] * 4)
    for one, other in zip(mask_costs(logits, masks, weights), mask_costs(logits[:, :6], masks[:, :6]), strict=True):
        torch.testing.assert_close(one, other)


def test_an_unknown_class_costs_by_the_quality():
    costs = class_costs(torch.zeros(2, 4), torch.tensor([-3.0, 3.0]), torch.tensor([-1, 0]))
    assert costs[:, 0].tolist() == pytest.approx([-0.0474, -0.9526], abs=1e-4)
    assert costs[:, 1].tolist() == pytest.approx([-0.25, -0.25])


def test_an_unknown_class_costs_nothing_without_quality():
    assert class_costs(torch.zeros(2, 4), None, torch.tensor([-1])).tolist() == [[0.0], [0.0]]


def test_every_target_gets_its_own_cheapest_query():
    cost = torch.tensor([[9.0, 1.0], [1.0, 2.0], [5.0, 5.0]])
    ((queries, targets),) = assign([cost])
    assert queries.tolist() == [0, 1]
    assert targets.tolist() == [1, 0]


def test_more_targets_than_queries_leaves_targets_over():
    ((queries, targets),) = assign([torch.tensor([[3.0, 1.0, 2.0]])])
    assert (queries.tolist(), targets.tolist()) == ([0], [1])


def test_matrices_of_different_shapes_are_solved_together():
    pairs = assign([torch.rand(4, 0), torch.rand(4, 2), torch.rand(3, 3)])
    assert [len(queries) for queries, _ in pairs] == [0, 2, 3]


def test_no_matrix_gives_no_pairs():
    assert assign([]) == []


def test_costs_that_are_not_finite_are_named():
    with pytest.raises(ValueError, match="not finite"):
        assign([torch.tensor([[float("nan")]])])
