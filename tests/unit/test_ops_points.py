"""Sampling at points, and the choice of uncertain points."""

from __future__ import annotations

import pytest
import torch

from omg_transformers.ops.points import random_points, sample_at_points, uncertain_points


def test_a_pixel_centre_gives_the_pixel():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    centres = torch.tensor([[[0.5 / 4, 0.5 / 3], [3.5 / 4, 2.5 / 3], [2.5 / 4, 0.5 / 3]]])
    assert sample_at_points(maps, centres)[0, 0].tolist() == pytest.approx([0.0, 11.0, 2.0], abs=1e-5)


def test_outside_the_map_is_zero():
    assert sample_at_points(torch.ones(1, 1, 3, 4), torch.tensor([[[1.5, 0.5]]])).item() == 0.0


def test_shared_points_equal_repeated_points():
    maps, points = torch.randn(3, 2, 5, 4), torch.rand(1, 7, 2)
    torch.testing.assert_close(sample_at_points(maps, points), sample_at_points(maps, points.expand(3, -1, -1)))


def test_no_maps_give_no_values_but_keep_the_graph():
    maps = torch.zeros(0, 1, 5, 4, requires_grad=True)
    sampled = sample_at_points(maps, torch.rand(0, 7, 2))
    assert sampled.shape == (0, 1, 7)
    assert sampled.requires_grad


@pytest.mark.parametrize(
    ("maps", "points"), [((2, 5, 4), (2, 3, 2)), ((2, 1, 5, 4), (2, 3, 3)), ((2, 1, 5, 4), (3, 3, 2))]
)
def test_wrong_shapes_are_refused(maps, points):
    with pytest.raises(ValueError, match=r"points"):
        sample_at_points(torch.zeros(maps), torch.zeros(points))


def test_the_generator_decides_the_points():
    first = random_points(2, 5, generator=torch.Generator().manual_seed(3))
    again = random_points(2, 5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first, again)
    assert not torch.equal(first[0], first[1])


def test_important_points_lie_where_the_mask_is_uncertain():
    logits = torch.full((1, 1, 16, 16), 9.0)
    logits[..., 8:] = 0.0
    points = uncertain_points(logits, 40, generator=torch.Generator().manual_seed(0))
    assert points.shape == (1, 40, 2)
    assert (points[0, :30, 0] > 0.47).all()
    assert (points[0, 30:, 0] < 0.47).any()


def test_logits_of_unknown_places_do_not_steer_the_choice():
    logits = torch.randn(2, 1, 16, 16)
    unknown = torch.zeros(2, 1, 16, 16)
    unknown[..., :6] = 1.0
    other = torch.where(unknown > 0, torch.zeros(()), logits)

    def choose(maps):
        return uncertain_points(maps, 32, is_unknown=unknown, generator=torch.Generator().manual_seed(0))

    assert torch.equal(choose(logits), choose(other))
    assert (choose(logits)[:, :24, 0] > 5 / 16).all()


@pytest.mark.parametrize("ratios", [{"oversample_ratio": 0.5}, {"importance_ratio": 1.5}])
def test_impossible_ratios_are_refused(ratios):
    with pytest.raises(ValueError, match=next(iter(ratios))):
        uncertain_points(torch.zeros(1, 1, 4, 4), 8, **ratios)
