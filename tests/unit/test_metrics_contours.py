"""Contours and their F on small masks, against the definition with dilated pictures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from omg_transformers.metrics.contours import bound_pixels, boundary_f, contour, matched, outline


def blobs(seed, shape=(40, 57), count=4):
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(shape)
    mask = np.zeros(shape, bool)
    for _ in range(count):
        centre, radius = rng.random(2) * shape, 2 + rng.random() * 9
        mask |= (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    return mask


def near(mask, radius):
    """Pixels within `radius` of the mask's contour."""
    reach = int(radius)
    rows, columns = np.indices((2 * reach + 1, 2 * reach + 1)) - reach
    return binary_dilation(contour(mask), rows**2 + columns**2 <= radius**2)


def test_a_contour_is_drawn_on_the_upper_left_side_of_an_edge():
    mask = np.zeros((5, 6), bool)
    mask[2:4, 2:4] = True
    assert contour(mask).astype(int).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_the_border_of_the_picture_is_no_contour():
    assert not contour(np.ones((4, 5), bool)).any()
    mask = np.zeros((4, 5), bool)
    mask[2:, 3:] = True
    assert contour(mask)[3].tolist() == [False, False, True, False, False]
    assert contour(mask)[:, 4].tolist() == [False, True, False, False]


@pytest.mark.parametrize("reach", [1, 2, 3.5, 8])
@pytest.mark.parametrize("seed", range(6))
def test_matched_pixels_are_those_within_a_disk(seed, reach):
    first, second = blobs(seed), blobs(seed + 100, count=1 + seed % 3)
    wanted = (contour(first) & near(second, reach)).sum()
    assert matched(outline(first, reach), outline(second, reach), reach) == wanted


@pytest.mark.parametrize("fill", [0.02, 0.5, 0.98])
def test_noise_and_masks_that_touch_all_borders_match_as_defined(fill):
    first, second = np.random.default_rng(0).random((2, 21, 34)) < fill
    wanted = (contour(first) & near(second, 2)).sum()
    assert matched(outline(first, 2), outline(second, 2), 2) == wanted


def test_far_away_masks_match_nowhere():
    first, second = np.zeros((2, 90, 90), bool)
    first[3:9, 3:9] = second[80:85, 80:85] = True
    assert boundary_f(first, second) == 0.0


def test_empty_masks_match_each_other_only():
    empty, full = np.zeros((9, 9), bool), blobs(0, (9, 9))
    assert boundary_f(empty, empty) == 1.0
    assert boundary_f(empty, full) == boundary_f(full, empty) == 0.0


def test_void_is_cut_from_both_masks():
    mask, void = blobs(1), np.zeros((40, 57), bool)
    void[:, 20:] = True
    assert boundary_f(mask | void, mask, void) == 1.0
    assert boundary_f(mask | void, mask) < 1.0


def test_the_reach_is_a_share_of_the_diagonal_or_pixels():
    assert bound_pixels((480, 854)) == math.ceil(0.008 * math.hypot(480, 854)) == 8
    assert bound_pixels((480, 854), 3) == 3
    with pytest.raises(ValueError, match="bound_th is 0"):
        bound_pixels((480, 854), 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_pictures_of_one_row_or_column(shape):
    mask = np.zeros(shape, bool)
    mask[-1, -1] = True
    assert boundary_f(mask, mask) == 1.0


def test_unequal_masks_are_refused():
    with pytest.raises(ValueError, match=r"prediction has shape \(2, 3\), truth \(3, 2\)"):
        boundary_f(np.zeros((2, 3), bool), np.zeros((3, 2), bool))
    with pytest.raises(ValueError, match="one frame of a clip"):
        outline(np.zeros((2, 3, 4), bool), 1)
