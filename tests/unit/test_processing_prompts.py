"""Prompts are given in pixels of the picture and reach the model in pixels of its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_transformers.processing import OMGSegImageProcessor, OMGSegProcessor


@pytest.fixture(scope="module")
def processor() -> OMGSegProcessor:
    return OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 100}))


PICTURE = np.zeros((50, 80, 3), np.uint8)
TALL = np.zeros((200, 100, 3), np.uint8)


def test_points_and_boxes_are_scaled_with_their_own_picture(processor):
    inputs = processor(
        [PICTURE, TALL],
        input_points=[[[[10, 20]], [[80, 50]]], [[[10, 20]], [[100, 200]]]],
        input_boxes=[[[0, 0, 40, 25], [-10, -10, -10, -10]], [[1, 2, 3, 4], [1, 2, 3, 4]]],
    )
    assert inputs["input_points"].shape == (2, 2, 1, 2)
    assert inputs["input_points"].squeeze(2).tolist() == [[[20, 40], [160, 100]], [[10, 20], [100, 200]]]
    assert inputs["input_boxes"].tolist() == [[[0, 0, 80, 50], [-10] * 4], [[1, 2, 3, 4]] * 2]
    assert "input_labels" not in inputs


def test_extreme_shapes_scale_each_axis_by_what_was_done_to_it():
    narrow = OMGSegProcessor(OMGSegImageProcessor(size={"longest_edge": 100}))
    inputs = narrow(np.zeros((10, 20000, 3), np.uint8), input_points=[[[[10000, 5]]]])
    assert inputs["input_points"].flatten().tolist() == [50.0, 0.5]


def test_labels_say_inside_or_outside(processor):
    inputs = processor(PICTURE, input_points=[[[[1, 2], [3, 4]]]], input_labels=[[[1, 0]]])
    assert inputs["input_labels"].tolist() == [[[1, 0]]]
    assert inputs["input_labels"].dtype == torch.int64


def test_arrays_and_tensors_are_taken_as_well(processor):
    points = [[[[1.5, 2.5]]]]
    expected = processor(PICTURE, input_points=points)["input_points"]
    for form in (np.array(points), torch.tensor(points)):
        torch.testing.assert_close(processor(PICTURE, input_points=form)["input_points"], expected)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": [[10, 20]]}, "input_points is nested 2 deep, more levels"),
        ({"input_points": [[[[[10, 20]]]]]}, "input_points is nested 5 deep, fewer levels"),
        ({"input_points": [[[[10, 20, 30]]]]}, "groups of 3 numbers"),
        ({"input_points": [[[[10, 20]], [[1, 2], [3]]]]}, "input_points is ragged"),
        ({"input_points": [[[["a", "b"]]]]}, "no number"),
        ({"input_points": [[[[None, 1]]]]}, "input_points holds"),
        ({"input_points": [[]]}, "input_points is nested|input_points is empty"),
        ({"input_points": [[[[float("nan"), 1]]]]}, "NaN"),
        (
            {"input_points": [[[[81, 20]]]]},
            r"input_points\[0\] holds \(81, 20\), outside the picture, which is 80 wide",
        ),
        ({"input_points": [[[[-1, 20]]]]}, r"holds \(-1, 20\)"),
        ({"input_points": [[[[1, 2]]], [[[1, 2]]]]}, "for 2 pictures but 1 were given"),
        ({"input_boxes": [1, 2, 3, 4]}, "input_boxes is nested 1 deep"),
        ({"input_boxes": [[[1, 2, 3]]]}, "groups of 3 numbers"),
        ({"input_boxes": [[[1, 2, 3, 4], [40, 2, 30, 4]]]}, r"input_boxes\[0\]\[1\] is 40, 2, 30, 4: .*x2 > x1"),
        ({"input_boxes": [[[1, 2, 1, 4]]]}, "x2 > x1"),
        ({"input_boxes": [[[1, 2, 90, 4]]]}, "outside the picture"),
        ({"input_labels": [[[1]]]}, "without input_points"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[1, 0]]]}, "one label per point"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[2]]]}, "input_labels holds 2"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [1]}, "input_labels is nested 1 deep"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[0]]]}, "object 0 of picture 0 has no point inside"),
        ({"input_points": [[[[1, 2]]]], "input_labels": [[[-10]]]}, "object 0 of picture 0 has no point inside"),
        ({"input_points": [[[[1, 2]]]], "input_boxes": [[[1, 2, 3, 4]] * 2]}, "different numbers of objects"),
        ({"input_boxes": [[[-10, -10, -10, -10]]]}, "object 0 of picture 0 has no point inside"),
        ({"input_boxes": [[[-10, -10, -10, 4]]]}, "outside the picture"),
        (
            {"input_masks": [[np.ones((8, 8), bool)]]},
            r"input_masks\[0\]\[0\] has shape \(8, 8\) but the picture is 50 high",
        ),
        ({"input_masks": [[np.zeros((50, 80), bool)]]}, r"input_masks\[0\]\[0\] is empty"),
        ({"input_masks": [[np.full((50, 80), 3.0)]]}, "outside 0 to 1"),
        ({"input_masks": [[np.full((50, 80), "a")]]}, "expected bool"),
        ({"input_masks": [[None]]}, "object 0 of picture 0 has no point inside"),
        ({"input_masks": [[]]}, "at least one"),
        ({"input_masks": [[None], [None]]}, "for 2 pictures but 1 were given"),
    ],
)
def test_a_wrong_prompt_is_named(processor, prompts, message):
    with pytest.raises((ValueError, TypeError), match=message):
        processor(PICTURE, **prompts)


def test_pictures_with_different_numbers_of_objects_are_told_to_go_alone(processor):
    with pytest.raises(ValueError, match="Call once per picture"):
        processor([PICTURE, TALL], input_boxes=[[[1, 2, 3, 4]], [[1, 2, 3, 4], [1, 2, 3, 4]]])


def test_objects_with_fewer_points_are_filled_up(processor):
    points = [[[[1, 2], [3, 4]], [[5, 6]]]]
    inputs = processor(PICTURE, input_points=points)
    assert inputs["input_points"].tolist() == [[[[2, 4], [6, 8]], [[10, 12], [-10, -10]]]]
    assert inputs["input_labels"].tolist() == [[[1, 1], [1, -10]]]
    inputs = processor(PICTURE, input_points=points, input_labels=[[[1, 0], [1]]])
    assert inputs["input_labels"].tolist() == [[[1, 0], [1, -10]]]
    with pytest.raises(ValueError, match="different numbers of points"):
        processor(PICTURE, input_points=points, input_labels=[[[1, 0], [1, 1]]])


def test_a_filled_place_may_hold_any_point(processor):
    inputs = processor(PICTURE, input_points=[[[[1, 2], [999, -5]]]], input_labels=[[[1, -10]]])
    assert inputs["input_points"].tolist() == [[[[2, 4], [-10, -10]]]]


@pytest.mark.parametrize("form", [bool, np.uint8, np.float32])
def test_masks_become_the_share_of_each_cell_that_is_inside(processor, form):
    mask = np.zeros((50, 80), form)
    mask[:5, :2] = 1
    inputs = processor(PICTURE, input_masks=[[mask, None]], input_boxes=[[[1, 2, 3, 4]] * 2])
    height, width = inputs["pixel_values"].shape[-2:]
    assert inputs["input_masks"].shape == (1, 2, height // 4, width // 4)
    # Twice as large: 10 rows are two and a half cells, 4 columns one.
    assert inputs["input_masks"][0, 0, :4, :2].tolist() == [[1, 0], [1, 0], [0.5, 0], [0, 0]]
    assert not inputs["input_masks"][0, 1].any()
