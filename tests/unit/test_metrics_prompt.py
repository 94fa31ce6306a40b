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
