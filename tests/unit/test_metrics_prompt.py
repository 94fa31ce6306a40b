"""Mean IoU over prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.prompt import MeanPromptIoU, mask_iou
from omg_transformers.ops.masks import encode_mask
from omg_transformers.structures import Annotation, Segment, Segments


def rle(*row):
    return encode_mask(torch.tensor([row]))


def result_of(*masks):
    count = len(masks)
    return Segments(
        (1, 4),
        torch.arange(1, count + 1),
        torch.full((count,), -1),
        torch.ones(count),
        rles=tuple((mask,) for mask in masks),
    )


def assert_same_columns(first, second):
    columns, expected = first.per_class(), second.per_class()
    assert list(columns) == list(expected)
    for name, column in columns.items():
        np.testing.assert_array_equal(column, expected[name], err_msg=name)


def test_iou_leaves_out_ignored_pixels():
    prediction, truth, ignore = (np.array(row, bool) for row in ([1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0]))
    assert mask_iou(prediction, truth) == 0.5
    assert mask_iou(prediction, truth, ignore) == pytest.approx(2 / 3)
    assert mask_iou(prediction & ~prediction, truth & ~truth) == 1.0


def test_prompts_answer_the_segments_that_are_no_crowd_in_order():
    segments = (
        Segment(0, (rle(1, 0, 0, 0),), is_crowd=True),
        Segment(0, (rle(1, 1, 0, 0),)),
        Segment(0, (None,)),
        Segment(1, (rle(0, 0, 1, 1),)),
    )
    metric = MeanPromptIoU()
    metric.update(result_of(rle(1, 1, 0, 0), rle(0, 1, 1, 1), None), Annotation((1, 4), (True, False), segments))
    figures = metric.compute()
    assert figures["iou"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures["recall_50"] == 1.0
    assert metric.count == 2


def test_void_does_not_count():
    metric = MeanPromptIoU()
    annotation = Annotation((1, 4), (True,), (Segment(0, (rle(1, 0, 0, 0),)),), (rle(0, 1, 1, 0),))
    metric.update(result_of(rle(1, 1, 1, 0)), annotation)
    assert metric.compute()["iou"] == 1.0


def test_too_few_predictions_are_refused():
    annotation = Annotation((1, 4), (True,), (Segment(0, (rle(1, 0, 0, 0),)),))
    with pytest.raises(ValueError, match="one prompt per segment"):
        MeanPromptIoU().update(result_of(), annotation)


def test_nothing_counted_is_nan():
    assert all(math.isnan(value) for value in MeanPromptIoU().compute().values())


def test_plain_masks_count_like_segments():
    first, second = np.array([[1, 1, 0, 0]], bool), np.array([[0, 0, 1, 1]], bool)
    metric = MeanPromptIoU()
    metric.update_masks([first, np.array([[0, 1, 1, 1]], bool)], [first, second], labels=[3, 0])
    assert metric.compute() == {"iou": pytest.approx((1 + 2 / 3) / 2), "recall_50": 1.0}
    ignored = MeanPromptIoU()
    ignored.update_masks([np.array([[0, 1, 1, 1]], bool)], [second], np.array([[0, 1, 0, 0]], bool))
    assert ignored.compute()["iou"] == 1.0


@pytest.mark.parametrize("num_classes", [None, 4])
def test_classes_without_a_prompt_are_nan(num_classes):
    mask, other = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0, 0]], bool)
    metric = MeanPromptIoU(num_classes)
    metric.update_masks([mask, other], [mask, mask], labels=[2, 2])
    metric.update_masks([mask], [~mask])
    columns = metric.per_class()
    assert list(columns) == ["iou", "recall_50", "prompts"]
    shown = slice(num_classes or 3)
    np.testing.assert_array_equal(columns["iou"], [np.nan, np.nan, 0.75, np.nan][shown])
    np.testing.assert_array_equal(columns["recall_50"], [np.nan, np.nan, 0.5, np.nan][shown])
    assert columns["prompts"].tolist() == [0, 0, 2, 0][shown]
    assert metric.compute()["iou"] == 0.5


def test_a_class_beyond_the_given_number_is_refused():
    mask = np.ones((1, 2), bool)
    with pytest.raises(ValueError, match="a prompt has class 4, the metric counts 3"):
        MeanPromptIoU(3).update_masks([mask], [mask], labels=[4])
    with pytest.raises(ValueError, match="num_classes is 0"):
        MeanPromptIoU(0)


def test_metrics_of_other_classes_do_not_merge():
    with pytest.raises(ValueError, match="4 classes into one of 3"):
        MeanPromptIoU(3).merge(MeanPromptIoU(4))


def test_merged_parts_equal_the_whole():
    mask, other = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0, 0]], bool)
    whole, part, rest = MeanPromptIoU(), MeanPromptIoU(), MeanPromptIoU()
    for metric in (whole, part):
        metric.update_masks([mask], [mask], labels=[1])
    for metric in (whole, rest):
        metric.update_masks([mask, mask], [other, other], labels=[1, 0])
    part.merge(rest)
    assert part.compute() == whole.compute()
    assert_same_columns(part, whole)


def test_masks_that_do_not_fit_are_refused_with_the_name_of_the_sample():
    mask = np.zeros((2, 3), bool)
    metric = MeanPromptIoU()
    with pytest.raises(ValueError, match="street: 1 predictions for 2 masks"):
        metric.update_masks([mask], [mask, mask], name="street")
    with pytest.raises(ValueError, match=r"street, mask 1: prediction has shape \(2, 3\), truth \(3, 2\)"):
        metric.update_masks([mask, mask], [mask, mask.T], name="street")
    with pytest.raises(ValueError, match=r"ignore has shape \(3, 2\)"):
        metric.update_masks([mask], [mask], mask.T)
    assert metric.count == 0
