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
        input_boxes=[[[0, 0, 40, 25]], [[1, 2, 3, 4]]],
    )
    assert inputs["input_points"].shape == (2, 2, 1, 2)
    assert inputs["input_points"].squeeze(2).tolist() == [[[20, 40], [160, 100]], [[10, 20], [100, 200]]]
    assert inputs["input_boxes"].tolist() == [[[0, 0, 80, 50]], [[1, 2, 3, 4]]]
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
        ({"input_points": [[[[10, 20]], [[1, 2], [3, 4]]]]}, "input_points is ragged"),
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
    ],
)
def test_a_wrong_prompt_is_named(processor, prompts, message):
    with pytest.raises((ValueError, TypeError), match=message):
        processor(PICTURE, **prompts)


def test_pictures_with_different_numbers_of_objects_are_told_to_go_alone(processor):
    with pytest.raises(ValueError, match="Call once per picture"):
        processor([PICTURE, TALL], input_boxes=[[[1, 2, 3, 4]], [[1, 2, 3, 4], [1, 2, 3, 4]]])
