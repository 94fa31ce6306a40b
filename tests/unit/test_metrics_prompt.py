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


def test_the_table_has_a_row_per_class_that_occurs():
    mask, other = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0, 0]], bool)
    metric = MeanPromptIoU()
    metric.update_masks([mask, other], [mask, mask], labels=[2, 2])
    metric.update_masks([mask], [~mask])
    assert metric.table(["a", "b", "cat"]) == [
        {"name": "", "prompts": 1, "iou": 0.0, "recall_50": 0.0},
        {"name": "cat", "prompts": 2, "iou": 0.75, "recall_50": 0.5},
    ]


def test_merged_parts_equal_the_whole():
    mask, other = np.array([[1, 1, 0, 0]], bool), np.array([[1, 0, 0, 0]], bool)
    whole, part, rest = MeanPromptIoU(), MeanPromptIoU(), MeanPromptIoU()
    for metric in (whole, part):
        metric.update_masks([mask], [mask], labels=[1])
    for metric in (whole, rest):
        metric.update_masks([mask, mask], [other, other], labels=[1, 0])
    part.merge(rest)
    assert part.compute() == whole.compute()
    assert part.table() == whole.table()


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
