"""Masks: run-length encoding, boxes, areas, overlaps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_transformers.ops.masks import (
    boxes_of_masks,
    decode_rle,
    decode_rles,
    encode_mask,
    encode_masks,
    encode_window,
    join_frames,
    mask_iou,
    rle_area,
    rle_box,
    rle_iou,
    stack_rles,
    union_of_rles,
)

SIZES = [(1, 1), (1, 7), (9, 1), (5, 8)]


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("density", [0.0, 0.5, 1.0])
def test_decode_gives_back_what_was_encoded(size, density, generator):
    mask = torch.rand(size, generator=generator) < density
    decoded = decode_rle(encode_mask(mask))
    assert decoded.dtype == torch.bool
    assert torch.equal(decoded, mask)


def test_encode_counts_any_grey_level_as_inside():
    assert encode_mask(np.array([[0, 3], [255, 1]])) == encode_mask(np.array([[0, 1], [1, 1]]))


def test_rle_runs_down_the_columns():
    # COCO's own string for a 2 x 2 mask with only the top right pixel: 2 outside, 1 inside, 1 outside.
    assert encode_mask(torch.tensor([[0, 1], [0, 0]])) == {"size": [2, 2], "counts": b"211"}


def test_decode_accepts_text_counts():
    assert decode_rle({"size": [2, 2], "counts": "211"}).tolist() == [[False, True], [False, False]]


def test_absent_frames_are_none_and_come_back_empty():
    masks = torch.zeros(3, 2, 4, dtype=torch.bool)
    masks[1, 0, 3] = True
    rles = encode_masks(masks)
    assert rles[0] is None
    assert rles[2] is None
    assert torch.equal(decode_rles(rles, (2, 4)), masks)


def test_decoding_to_another_size_names_the_frame():
    with pytest.raises(ValueError, match="frame 1 has size"):
        decode_rles((None, encode_mask(torch.ones(2, 2))), (3, 2))


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 4)])
def test_encode_refuses_other_dimensions(shape):
    with pytest.raises(ValueError, match="expected"):
        encode_mask(torch.ones(shape))
    with pytest.raises(ValueError, match="expected"):
        encode_masks(torch.ones(shape))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("margin", [(0, 0, 0, 0), (2, 0, 0, 3), (0, 4, 1, 0), (1, 1, 1, 1)])
def test_encoding_a_window_equals_encoding_the_whole_mask(size, margin, generator):
    top, bottom, left, right = margin
    for density in (0.0, 0.3, 0.7, 1.0):
        mask = torch.rand(size, generator=generator) < density
        whole = torch.nn.functional.pad(mask, (left, right, top, bottom))
        assert encode_window(mask, origin=(top, left), size=tuple(whole.shape)) == encode_mask(whole)


def test_a_window_outside_the_picture_is_refused():
    with pytest.raises(ValueError, match="leaves size"):
        encode_window(torch.ones(2, 2), origin=(3, 0), size=(4, 4))


def test_area_and_box_of_a_hand_made_mask():
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1:3, 2:6] = True
    rle = encode_mask(mask)
    assert rle_area(rle) == 8
    assert rle_box(rle) == (2.0, 1.0, 6.0, 3.0)
    assert boxes_of_masks(mask).tolist() == [2.0, 1.0, 6.0, 3.0]


def test_absent_and_empty_masks_have_no_area_and_a_zero_box():
    empty = encode_mask(torch.zeros(3, 2))
    for rle in (None, empty):
        assert rle_area(rle) == 0
        assert rle_box(rle) == (0.0, 0.0, 0.0, 0.0)
    assert boxes_of_masks(torch.zeros(2, 3, 4, 5, dtype=torch.bool)).tolist() == [[[0.0] * 4] * 3] * 2


def test_one_pixel_mask_has_a_one_pixel_box():
    assert boxes_of_masks(torch.ones(1, 1, 1, dtype=torch.bool)).tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_mask_iou_of_hand_made_masks():
    first = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]]]).bool()
    second = torch.tensor([[[0, 1, 1, 0]], [[1, 1, 0, 0]]]).bool()
    torch.testing.assert_close(mask_iou(first, second), torch.tensor([[1 / 3, 1.0], [0.0, 0.0]]))


def test_mask_iou_refuses_different_sizes():
    with pytest.raises(ValueError, match="differ in size"):
        mask_iou(torch.ones(1, 2, 2), torch.ones(1, 2, 3))


def test_rle_iou_agrees_with_mask_iou(generator):
    first, second = (torch.rand(3, 5, 7, generator=generator) < 0.5 for _ in range(2))
    overlaps = rle_iou([encode_mask(mask) for mask in first], [encode_mask(mask) for mask in second])
    torch.testing.assert_close(overlaps.float(), mask_iou(first, second))


def test_overlap_with_a_crowd_is_measured_against_the_first_mask():
    small, crowd = torch.tensor([[1, 0, 0, 0]]), torch.tensor([[1, 1, 1, 1]])
    assert rle_iou([encode_mask(small)], [encode_mask(crowd)], is_crowd=[True]).item() == 1.0
    assert rle_iou([encode_mask(small)], [encode_mask(crowd)]).item() == 0.25


def test_rle_iou_without_masks_is_an_empty_table():
    assert rle_iou([], [encode_mask(torch.ones(1, 1))]).shape == (0, 1)


def test_segments_are_stacked_and_joined():
    first, second = (encode_masks(torch.tensor([row])) for row in ([[1, 0, 0]], [[0, 0, 1]]))
    assert stack_rles([first, second], 1, (1, 3)).int().tolist() == [[[[1, 0, 0]]], [[[0, 0, 1]]]]
    assert union_of_rles([first, second], 1, (1, 3)).int().tolist() == [[[1, 0, 1]]]
    assert stack_rles([], 2, (1, 3)).shape == (0, 2, 1, 3)


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
def test_frames_are_joined_side_by_side(density, generator):
    masks = torch.rand((4, 3, 5), generator=generator) < density
    masks[1] = False
    joined = join_frames(encode_masks(masks), (3, 5))
    assert joined == encode_mask(torch.cat(list(masks), dim=1))
