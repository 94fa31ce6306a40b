"""Sampling for inference gives what sampling for training gives, wherever a token looks."""

import pytest
import torch

from omg_transformers.model.pixel_decoder import _sample_for_inference, _sample_for_training, _short_softmax

BATCH, HEADS, POINTS, WIDTH = 2, 4, 3, 8
SIZES = [(1, 1), (2, 3), (5, 4)]
LENGTH = sum(height * width for height, width in SIZES)


def sample_both(locations):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(BATCH, LENGTH, HEADS, WIDTH, generator=generator)
    weights = torch.rand(BATCH, LENGTH, HEADS, 3 * POINTS, generator=generator)
    return (sample(values, locations, weights, SIZES) for sample in (_sample_for_inference, _sample_for_training))


def random_locations(spread):
    shape = (BATCH, LENGTH, 2, HEADS, 3 * POINTS)
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("spread", [0.3, 2.0, 20.0])
def test_both_samplers_agree_in_and_around_levels_of_any_size(spread):
    inference, training = sample_both(random_locations(spread))
    assert inference.shape == (BATCH, LENGTH, HEADS * WIDTH)
    torch.testing.assert_close(inference, training, atol=1e-5, rtol=0)


@pytest.mark.parametrize("place", [-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 6.0])
def test_both_samplers_agree_on_cell_centres_and_borders(place):
    locations = random_locations(1.0)
    locations[:, :, 0] = place
    inference, training = sample_both(locations)
    torch.testing.assert_close(inference, training, atol=1e-5, rtol=0)


def test_far_outside_is_exactly_zero():
    inference, _ = sample_both(torch.full((BATCH, LENGTH, 2, HEADS, 3 * POINTS), 1e9))
    assert not inference.any()


def test_short_softmax_equals_softmax_for_large_logits_too():
    logits = 200 * torch.randn(5, 7, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_short_softmax(logits), logits.softmax(-1))
