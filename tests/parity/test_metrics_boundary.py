"""Boundaries of masks and their IoU against the boundary IoU API."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from omg_transformers.metrics.boundary import boundary_iou, boundary_of, rims_of


@pytest.fixture(scope="module")
def pairs(golden_metrics):
    folder = golden_metrics / "boundary"
    arrays = np.load(folder / "data.npz")
    found = json.loads((folder / "expected.json").read_text())["pairs"]
    assert len(found) == sum(name.startswith("a") for name in arrays.files) >= 20
    return [(pair, arrays[f"a{pair['index']}"], arrays[f"b{pair['index']}"], arrays) for pair in found]


def test_bands_equal_the_reference_pixel_by_pixel(pairs):
    for pair, mask, _, arrays in pairs:
        expected = arrays[f"bd_a{pair['index']}_0.02"]
        np.testing.assert_array_equal(boundary_of(mask, 0.02), expected)
        np.testing.assert_array_equal(rims_of(mask.astype(int), 0.02) & mask, expected)


@pytest.mark.parametrize("ratio", [0.005, 0.02])
def test_ious_and_areas_equal_the_reference(pairs, ratio):
    for pair, prediction, truth, _ in pairs:
        bands = boundary_of(prediction, ratio), boundary_of(truth, ratio)
        areas = [int(band.sum()) for band in (*bands, bands[0] & bands[1], bands[0] | bands[1])]
        assert areas == pair[f"boundary_areas_{ratio}"]
        expected, found = pair[f"boundary_iou_{ratio}"], boundary_iou(prediction, truth, ratio)
        assert math.isnan(found) if expected is None else found == pytest.approx(expected, abs=1e-9)
