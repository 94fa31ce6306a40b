"""Boundaries of masks and of id maps, and boundary panoptic quality."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from omg_transformers.metrics.boundary import BoundaryPanopticQuality, band_width, boundary_iou, boundary_of, rims_of
from omg_transformers.metrics.panoptic import PanopticQuality


def slow_boundary(mask, width):
    square = np.ones((2 * width + 1, 2 * width + 1), dtype=bool)
    return mask & ~ndimage.binary_erosion(mask, square, border_value=0)


def blobs(seed, size=(33, 47)):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size), 4)
    return noise > 0


@pytest.mark.parametrize("ratio", [0.005, 0.02, 0.06, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_boundaries_equal_erosion_by_a_square(seed, ratio):
    mask = blobs(seed)
    expected = slow_boundary(mask, band_width(mask.shape, ratio))
    np.testing.assert_array_equal(boundary_of(mask, ratio), expected)


@pytest.mark.parametrize("ratio", [0.02, 0.06, 0.5])
def test_rims_of_id_maps_equal_the_boundaries_of_their_segments(ratio):
    ids = blobs(0) + 2 * blobs(1) + 4 * blobs(2)
    rims = rims_of(ids, ratio)
    for identity in np.unique(ids):
        np.testing.assert_array_equal(rims & (ids == identity), boundary_of(ids == identity, ratio))


def test_a_batch_of_masks_has_the_boundaries_of_each():
    masks = np.stack([blobs(0), blobs(1), np.zeros((33, 47), dtype=bool)])
    np.testing.assert_array_equal(boundary_of(masks), np.stack([boundary_of(mask) for mask in masks]))


def test_what_lies_outside_the_picture_is_not_in_the_mask():
    assert boundary_of(np.ones((5, 5), dtype=bool)).sum() == 25 - 9


def test_bands_are_at_least_one_pixel_wide():
    assert band_width((2, 2)) == 1
    assert band_width((480, 640)) == 16


def test_boundary_iou_of_equal_masks_is_one_and_of_two_empty_ones_nan():
    empty = np.zeros((8, 9), dtype=bool)
    assert boundary_iou(blobs(0), blobs(0)) == 1
    assert boundary_iou(empty, ~empty) == 0
    assert math.isnan(boundary_iou(empty, empty))


def test_masks_of_zeros_and_ones_are_masks():
    np.testing.assert_array_equal(boundary_of(blobs(0).astype(np.uint8)), boundary_of(blobs(0)))


def test_bad_masks_and_ratios_are_refused():
    with pytest.raises(ValueError, match="zeros and ones"):
        boundary_of(np.full((3, 3), 255))
    with pytest.raises(ValueError, match=r"expected \(\.\.\., H, W\)"):
        boundary_of(np.ones(3, dtype=bool))
    with pytest.raises(ValueError, match="must be equal"):
        boundary_iou(np.ones((3, 3), dtype=bool), np.ones((3, 4), dtype=bool))
    for ratio in (0, 1, math.nan):
        with pytest.raises(ValueError, match="dilation_ratio"):
            boundary_of(np.ones((3, 3), dtype=bool), ratio)


def shifted_square(shift):
    ids = np.zeros((60, 80), dtype=int)
    ids[10:50, 10 + shift : 60 + shift] = 3
    return ids


def test_a_pair_has_the_smaller_one_of_its_two_ious():
    truth, prediction = shifted_square(0), shifted_square(1)
    metric = BoundaryPanopticQuality(1)
    metric.update_maps(prediction, np.where(truth, truth, 4), {3: 0}, {3: 0, 4: 0})
    expected = boundary_iou(prediction == 3, truth == 3)
    assert expected > 0.5
    assert metric.per_class()["iou"].tolist() == pytest.approx([expected])
    assert metric.per_class()["tp"].tolist() == [1]


def test_boundary_quality_is_never_above_panoptic_quality():
    classes = {identity: identity % 2 for identity in range(1, 8)}
    for seed in range(5):
        truth = blobs(seed) + 2 * blobs(seed + 9) + 4 * blobs(seed + 20)
        prediction = np.roll(truth, 1, axis=1)
        plain, strict = PanopticQuality(2), BoundaryPanopticQuality(2)
        for metric in (plain, strict):
            metric.update_maps(prediction, truth, classes, classes)
        assert 0 <= strict.compute()["pq"] <= plain.compute()["pq"]


def test_void_in_the_truth_leaves_the_boundary_union():
    truth, prediction = shifted_square(0), np.full((60, 80), 3)
    metric = BoundaryPanopticQuality(1)
    metric.update_maps(shifted_square(0), truth, {3: 0}, {3: 0})
    assert metric.compute()["pq"] == 1
    # All that is predicted too much lies in void, but the square's own rim is not predicted as a rim.
    other = BoundaryPanopticQuality(1)
    other.update_maps(prediction, truth, {3: 0}, {3: 0})
    assert other.per_class()["fn"].tolist() == [1]


def test_a_segment_whose_id_is_a_class_number_is_counted_right():
    # The published tool marks the inside of segments with "largest class id + 1", which may be a segment's id.
    truth, prediction = shifted_square(0), shifted_square(1)
    tables = []
    for identity in (1, 2, 50):
        metric = BoundaryPanopticQuality(1)
        maps = [np.where(ids == 3, identity, 0) for ids in (prediction, truth)]
        metric.update_maps(*maps, {identity: 0}, {identity: 0})
        tables.append(metric.per_class()["iou"].tolist())
    assert tables[0] == tables[1] == tables[2]


def test_metrics_of_other_bands_do_not_merge():
    with pytest.raises(ValueError, match=r"dilation_ratio 0\.01"):
        BoundaryPanopticQuality(1).merge(BoundaryPanopticQuality(1, dilation_ratio=0.01))
