"""The deepest pixel of a mask, and how deep all others are."""

from __future__ import annotations

import numpy as np
import pytest

from omg_transformers.ops.deepest import deepest_point, mask_depths


def peeled_ring_by_ring(mask):
    """The definition, pixel by pixel: the smooth minimum of the distances to neighbours that are peeled already."""
    depths, inside, ring = np.zeros(mask.shape), np.pad(mask, 1), 0
    while inside.any():
        before = inside.copy()
        for row, column in np.argwhere(before):
            steps = [
                np.hypot(down, across)
                for down in (-1, 0, 1)
                for across in (-1, 0, 1)
                if not before[row + down, column + across]
            ]
            if steps:
                depths[row - 1, column - 1] = ring - 0.35 * np.log(np.exp(-np.array(steps) / 0.35).sum())
                inside[row, column] = False
        ring += 1
    return depths


def blobs(seed, size=(19, 31)):
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, bool)
    for _ in range(3):
        y, x, height, width = generator.uniform(0, size[0]), generator.uniform(0, size[1]), *generator.uniform(1, 9, 2)
        mask |= ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
    return mask & (generator.random(size) > 0.03)


def test_one_pass_equals_peeling_ring_by_ring():
    for seed in range(20):
        mask = blobs(seed)
        np.testing.assert_allclose(mask_depths(mask), peeled_ring_by_ring(mask), atol=1e-12)


def test_the_middle_of_a_square_is_its_deepest_pixel():
    mask = np.zeros((20, 30), bool)
    mask[3:12, 10:19] = True
    assert deepest_point(mask) == (14, 7)


def test_what_lies_beyond_the_picture_is_outside():
    assert deepest_point(np.ones((7, 7), bool)) == (3, 3)


def test_the_deepest_pixel_of_a_ring_is_on_the_ring():
    rows, columns = np.mgrid[:60, :60]
    radius = np.hypot(rows - 30, columns - 30)
    mask = (radius > 15) & (radius < 25)
    x, y = deepest_point(mask)
    assert mask[y, x]
    assert abs(radius[y, x] - 20) < 2


def test_a_single_pixel_is_found():
    mask = np.zeros((4, 7), bool)
    mask[3, 6] = True
    assert deepest_point(mask) == (6, 3)


@pytest.mark.parametrize("size", [(5, 6), (0, 0), (0, 4)])
def test_an_empty_mask_has_no_deepest_pixel(size):
    assert deepest_point(np.zeros(size, bool)) is None


def test_depths_are_zero_outside_and_positive_inside():
    mask = blobs(0)
    assert np.array_equal(mask_depths(mask) > 0, mask)


def test_a_clip_is_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4\): expected \(H, W\)"):
        mask_depths(np.zeros((2, 3, 4), bool))
