"""Segmentation and tracking quality on hand-made clips."""

from __future__ import annotations

import math

import numpy as np
import pytest

from omg_transformers.metrics.segmentation_tracking import SegmentationTrackingQuality

CLASSES = {1: 0, 2: 0, 3: 1}


def clip(*frames):
    return np.array(frames)[:, None]


def stq(prediction, truth, **options):
    metric = SegmentationTrackingQuality(2, is_thing=(True, False))
    metric.update_maps(clip(*prediction), clip(*truth), CLASSES, CLASSES, **options)
    return metric


def test_a_perfect_video_scores_one():
    video = [[1, 1, 2, 3], [1, 2, 2, 3]]
    assert stq(video, video).compute() == {"stq": 1, "aq": 1, "sq": 1}


def test_an_identity_switch_costs_association_only():
    figures = stq([[1, 1], [2, 2]], [[1, 1], [1, 1]]).compute()
    assert figures["sq"] == 1
    # Two halves, each with an IoU of one half with the whole: 1/4 * (2 * 1/2 + 2 * 1/2).
    assert figures["aq"] == 0.5
    assert figures["stq"] == pytest.approx(math.sqrt(0.5))


def test_stuff_has_no_identity():
    metric = stq([[3, 3], [3, 3]], [[3, 3], [3, 3]])
    assert metric.compute() == {"stq": 0, "aq": 0, "sq": 1}
    np.testing.assert_array_equal(metric.per_class()["aq"], [np.nan, np.nan])


def test_void_predictions_count_as_one_more_class():
    metric = stq([[1, 0]], [[1, 1]])
    assert metric.per_class()["iou"][0] == 0.5
    assert metric.compute()["sq"] == 0.25


def test_void_truth_is_left_out_of_the_classes_but_not_of_predicted_tubes():
    figures = stq([[1, 1]], [[1, 0]]).compute()
    assert figures["sq"] == 1
    assert figures["aq"] == 0.5


def test_crowds_have_a_class_but_no_identity():
    figures = stq([[1, 1, 2, 2]], [[1, 1, 2, 2]], crowd_ids=(2,)).compute()
    assert figures == {"stq": 1, "aq": 1, "sq": 1}
    # The tube of the single object may reach into the crowd.
    assert stq([[1, 1, 1, 1]], [[1, 1, 2, 2]], crowd_ids=(2,)).compute()["aq"] == 1
    assert stq([[1, 1, 1, 1]], [[1, 1, 2, 2]]).compute()["aq"] < 1


def test_true_things_with_instance_number_zero_are_crowds():
    classes = np.zeros((1, 1, 4), dtype=int)
    truth, prediction = np.array([[[0, 0, 5, 5]]]), np.array([[[7, 7, 7, 7]]])
    metric = SegmentationTrackingQuality(2, is_thing=(True, False))
    metric.update_class_maps((classes, prediction), (classes, truth))
    assert metric.counts.num_tubes.tolist() == [1, 0]
    assert metric.compute()["aq"] == 1


def test_weights_count_pixels():
    classes, truth, prediction = np.zeros((1, 1, 2), dtype=int), np.array([[[1, 1]]]), np.array([[[1, 2]]])
    for weights, association in (([[[1, 1]]], 0.5), ([[[3, 1]]], 0.625), ([[[1, 0]]], 1)):
        metric = SegmentationTrackingQuality(1)
        metric.update_class_maps((classes, prediction), (classes, truth), weights=np.array(weights, dtype=float))
        assert metric.compute()["aq"] == pytest.approx(association)


def test_merged_metrics_equal_one_metric():
    generator = np.random.default_rng(0)
    whole, first, second = (SegmentationTrackingQuality(2, is_thing=(True, False)) for _ in range(3))
    for index in range(4):
        prediction, truth = generator.integers(0, 4, (2, 3, 4, 5))
        for metric in (whole, (first, second)[index % 2]):
            metric.update_maps(prediction, truth, CLASSES, CLASSES)
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute())
    assert len(first.per_video()) == 4
    assert {row["frames"] for row in first.per_video()} == {3}


def test_the_state_does_not_hold_a_table_per_video():
    metric = SegmentationTrackingQuality(200)
    for _ in range(3):
        metric.update_maps(clip([1]), clip([1]), CLASSES, CLASSES)
    assert all(isinstance(value, (int, float)) for row in metric.videos for value in row.values())


def test_nothing_counted_is_nan():
    metric = SegmentationTrackingQuality(2)
    assert math.isnan(metric.compute()["stq"])
    assert np.isnan(metric.per_class()["iou"]).all()


def test_metrics_of_other_classes_do_not_merge():
    with pytest.raises(ValueError, match="2 classes into one of 3"):
        SegmentationTrackingQuality(3).merge(SegmentationTrackingQuality(2))
