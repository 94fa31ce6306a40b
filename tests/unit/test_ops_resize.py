"""Masks at the size that was asked for: equal to interpolating twice, tile by tile."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from omg_transformers.ops.masks import decode_rle
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.structures import QueryOutput

# grid, padded input, content, target
CASES = [
    ((16, 24), (64, 96), (60, 90), (75, 113)),
    ((50, 84), (200, 336), (200, 333), (540, 960)),
    ((48, 64), (48, 64), (45, 60), (70, 101)),
    ((9, 12), (36, 48), (33, 47), (20, 13)),
    ((3, 3), (12, 12), (9, 10), (300, 400)),
    ((1, 5), (4, 20), (1, 17), (1, 3)),
    ((1, 1), (4, 4), (4, 4), (20, 30)),
    ((2, 3), None, None, (33, 47)),
    ((48, 64), None, None, (5, 1)),
    ((1, 1), None, None, (1, 1)),
    ((40, 2), (160, 8), (160, 1), (2500, 10)),
]


def interpolated_twice(masks, padded, content, target):
    """What the original does, with the padding filled up from the content's edge."""
    masks = masks[None]
    if padded is not None:
        height, width = masks.shape[-2:]
        rows, columns = -(-content[0] * height // padded[0]), -(-content[1] * width // padded[1])
        masks = functional.pad(masks[..., :rows, :columns], (0, width - columns, 0, height - rows), mode="replicate")
        masks = functional.interpolate(masks, size=padded, mode="bilinear", align_corners=False)
        masks = masks[..., : content[0], : content[1]]
    return functional.interpolate(masks, size=target, mode="bilinear", align_corners=False)[0]


def random_masks(grid, count=2, scale=5.0):
    return torch.randn((count, *grid), generator=torch.Generator().manual_seed(1)) * scale


@pytest.mark.parametrize(("grid", "padded", "content", "target"), CASES)
def test_resizing_equals_interpolating_twice(grid, padded, content, target):
    masks = random_masks(grid)
    resized = MaskResizer(grid, target, input_size=padded, content_size=content).resize(masks)
    expected = interpolated_twice(masks, padded, content, target)
    # `interpolate` rounds its float32 coordinates by size and release: torch 2.15 is up to 4e-5 off 2.14 here.
    torch.testing.assert_close(resized, expected, atol=1e-4, rtol=0)
    assert torch.equal((resized > 0)[expected.abs() > 1e-4], (expected > 0)[expected.abs() > 1e-4])


def test_without_padding_the_original_is_equalled_to_the_last_pixel():
    masks = random_masks((16, 24))
    once = functional.interpolate(masks[None], size=(64, 96), mode="bilinear")
    expected = functional.interpolate(once, size=(75, 113), mode="bilinear")[0]
    resized = MaskResizer((16, 24), (75, 113), input_size=(64, 96)).resize(masks)
    torch.testing.assert_close(resized, expected, atol=1e-5, rtol=0)


def test_steep_masks_on_a_large_target_follow_the_coordinates_of_interpolate():
    # Coordinates rounded otherwise than `interpolate` rounds them would be off by 1e-3 here.
    masks = random_masks((2, 250), count=1, scale=40.0)
    resized = MaskResizer((2, 250), (4, 3001), input_size=(8, 1000)).resize(masks)
    expected = interpolated_twice(masks, (8, 1000), (8, 1000), (4, 3001))
    torch.testing.assert_close(resized, expected, atol=5e-5, rtol=0)


def test_what_lies_in_the_padding_changes_nothing():
    masks = random_masks((16, 24))
    resizer = MaskResizer((16, 24), (75, 113), input_size=(64, 96), content_size=(60, 88))
    changed = masks.clone()
    changed[:, 15:] = 1e6
    changed[:, :, 22:] = -1e6
    assert resizer.content_grid == (15, 22)
    assert torch.equal(resizer.resize(changed), resizer.resize(masks))


@pytest.mark.parametrize(("rows", "columns"), [((0, 1), (0, 960)), ((100, 300), (250, 270)), ((539, 540), (959, 960))])
def test_a_window_holds_exactly_the_numbers_of_the_whole(rows, columns):
    grid, padded, content, target = CASES[1]
    masks = random_masks(grid)
    resizer = MaskResizer(grid, target, input_size=padded, content_size=content)
    whole = resizer.resize(masks)
    window = resizer.resize(masks, rows=rows, columns=columns)
    assert torch.equal(window, whole[:, rows[0] : rows[1], columns[0] : columns[1]])


@pytest.mark.parametrize(("grid", "padded", "content", "target"), CASES)
def test_tiles_cover_the_target_once_and_stay_within_their_bounds(grid, padded, content, target):
    masks = random_masks(grid)
    resizer = MaskResizer(grid, target, input_size=padded, content_size=content, tile_size=(64, 64))
    low, high = resizer.bounds(masks)
    seen = torch.zeros(target, dtype=torch.int)
    for row, column in resizer.tiles():
        seen[resizer.row_bands[row].target, resizer.column_bands[column].target] += 1
        tile = resizer.tile(masks, row, column).flatten(1)
        assert (tile.amax(1) <= high[row, column]).all()
        assert (tile.amin(1) >= low[row, column]).all()
    assert (seen == 1).all()


def test_the_sum_of_a_tile_is_known_without_making_it():
    grid, padded, content, target = CASES[0]
    masks = random_masks(grid)
    resizer = MaskResizer(grid, target, input_size=padded, content_size=content, tile_size=(32, 32))
    for row, column in resizer.tiles():
        patches = masks[:, resizer.row_bands[row].grid, resizer.column_bands[column].grid]
        expected = resizer.tile(masks, row, column).sum((1, 2))
        torch.testing.assert_close(resizer.sums(patches, row, column), expected, atol=1e-2, rtol=1e-5)


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 3.0, 1000.0])
def test_thresholding_by_tiles_equals_thresholding_the_whole(threshold):
    grid, padded, content, target = CASES[1]
    masks = random_masks(grid)
    resizer = MaskResizer(grid, target, input_size=padded, content_size=content)
    logits = resizer.resize(masks)
    high = resizer.bounds(masks)[1]
    for index in range(len(masks)):
        inside = logits[index] > threshold
        found = resizer.threshold(masks[index], high[..., index], threshold=threshold)
        assert found.area == int(inside.sum())
        assert found.prob_sum == pytest.approx(float(logits[index].sigmoid()[inside].double().sum()), rel=1e-6)
        assert (found.rle is None) == (found.area == 0)
        if found.rle is not None:
            assert torch.equal(decode_rle(found.rle), inside)


def test_half_precision_masks_are_resized_in_single_precision():
    masks = random_masks((16, 24)).bfloat16()
    resizer = MaskResizer((16, 24), (75, 113))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        resized = resizer.resize(masks)
    assert resized.dtype == torch.float32
    assert torch.equal(resized, resizer.resize(masks.float()))


def test_a_resizer_is_made_for_one_sample_of_an_output():
    output = QueryOutput(
        None, torch.zeros(2, 1, 1, 16, 24), input_size=(64, 96), content_sizes=torch.tensor([[64, 96], [40, 50]])
    )
    assert MaskResizer.of(output, 0, (10, 20)).content_grid == (16, 24)
    assert MaskResizer.of(output, 1, (100, 200)).content_grid == (10, 13)


def test_content_larger_than_the_input_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        MaskResizer((4, 4), (8, 8), input_size=(16, 16), content_size=(17, 16))


def test_content_without_input_is_refused():
    with pytest.raises(ValueError, match="needs input_size"):
        MaskResizer((4, 4), (8, 8), content_size=(16, 16))


@pytest.mark.parametrize("target", [(20000, 10), (10, 20000)])
def test_a_thin_picture_is_cut_into_few_tiles(target):
    grid = tuple(max(1, side * 320 // 20000) for side in target)
    assert len(list(MaskResizer(grid, target).tiles())) <= 40


def test_a_usual_picture_keeps_the_usual_tiles():
    resizer = MaskResizer((270, 480), (1080, 1920))
    assert (len(resizer.row_bands), len(resizer.column_bands)) == (9, 8)
