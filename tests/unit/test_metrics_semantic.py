"""Mean IoU of hand-counted maps."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from omg_transformers.metrics.semantic import MeanIoU, class_ious, count_pixels, reduce_labels
from omg_transformers.ops.masks import encode_mask
from omg_transformers.structures import Annotation, Segment, Segments


def test_pixels_are_counted_by_truth_and_prediction():
    counts = count_pixels(np.array([0, 1, 1, 9, 0]), np.array([0, 0, 1, 1, 255]), 2)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 1]]


def test_ious_of_a_hand_made_confusion():
    # Class 0: 1 of 1 + 1 + 1; class 1: 2 of 2 + 1 + 1; class 2 does not occur.
    confusion = np.array([[1, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(class_ious(confusion), [1 / 3, 0.5, np.nan])


def result_of(classes):
    ids = torch.tensor(classes, dtype=torch.int32)[None] + 1
    labels = ids.unique()[ids.unique() > 0].long() - 1
    return Segments(tuple(ids.shape[1:]), labels + 1, labels, torch.ones(len(labels)), id_map=ids)


def annotation_of(classes, *, crowd=None, void=None):
    truth = torch.tensor(classes)
    segments = tuple(
        Segment(label, (encode_mask(truth == label),), is_crowd=label == crowd)
        for label in truth.unique().tolist()
        if label >= 0
    )
    return Annotation(tuple(truth.shape), (True, False, False), segments, (void,))


def test_void_pixels_do_not_count_and_crowds_do():
    metric = MeanIoU(3)
    metric.update(result_of([[0, 0, 1, 2]]), annotation_of([[0, 0, 1, -1]], crowd=0))
    assert set(metric.compute().values()) == {1.0}


def test_pixels_without_a_predicted_class_are_misses():
    metric = MeanIoU(3)
    metric.update(result_of([[0, -1, -1, 0]]), annotation_of([[0, 0, 1, 1]]))
    figures = metric.compute()
    assert figures["miou"] == pytest.approx((1 / 3 + 0) / 2)
    assert figures["pixel_accuracy"] == 0.25


def test_nothing_counted_is_nan():
    assert all(math.isnan(value) for value in MeanIoU(2).compute().values())


def test_a_prediction_that_is_no_class_is_a_miss_whatever_its_value():
    for value in (-3, 7, 255):
        metric = MeanIoU(2)
        metric.update_maps(np.array([[0, value, 1, 1]]), np.array([[0, 0, 1, 1]]))
        assert metric.confusion.tolist() == [[1, 0, 1], [0, 2, 0]]


def test_truth_outside_the_classes_is_void_unless_another_value_is():
    prediction, truth = np.array([[0, 0, 1, 1]]), np.array([[0, 255, 1, 7]])
    lenient, strict = MeanIoU(2), MeanIoU(2, ignore_index=255)
    lenient.update_maps(prediction, truth)
    strict.update_maps(prediction, truth)
    assert lenient.ious().tolist() == [1.0, 1.0]
    assert strict.ious().tolist() == [1.0, 0.5]
    assert strict.compute()["pixel_accuracy"] == 1.0


def test_an_ignored_class_is_only_ever_a_false_positive():
    metric = MeanIoU(3, ignore_index=0)
    metric.update_maps(np.array([[0, 0, 1, 2]]), np.array([[0, 1, 1, 2]]))
    assert metric.per_class()["true"].tolist() == [0, 2, 1]
    np.testing.assert_allclose(metric.ious(), [0, 0.5, 1])


def test_classes_that_are_only_predicted_count_or_are_left_out():
    prediction, truth = np.array([[0, 0, 0, 2]]), np.array([[0, 0, 0, 0]])
    counted, left_out = MeanIoU(3), MeanIoU(3, with_false_classes=False)
    for metric in (counted, left_out):
        metric.update_maps(prediction, truth)
    assert counted.compute()["miou"] == pytest.approx(0.75 / 2)
    assert left_out.compute()["miou"] == 0.75
    assert math.isnan(left_out.per_class()["iou"][2])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.int64, np.uint32])
def test_the_type_of_a_map_does_not_matter(dtype):
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 8, (2, 33, 47))
    expected = np.zeros((6, 7), dtype=int)
    np.add.at(expected, (truth[truth < 6], np.minimum(prediction[truth < 6], 6)), 1)
    assert np.array_equal(count_pixels(prediction.astype(dtype), truth.astype(dtype), 6), expected)


def test_maps_numbered_as_ade20k_s_start_at_one():
    stored = np.array([[0, 1, 150, 255]], dtype=np.uint8)
    assert reduce_labels(stored).tolist() == [[-1, 0, 149, -1]]
    metric = MeanIoU(150, is_ade_numbered=True)
    metric.update_maps(np.array([[5, 0, 149, 5]], dtype=np.uint8), stored)
    assert metric.compute()["miou"] == 1.0
    with pytest.raises(ValueError, match="void 255"):
        MeanIoU(150, is_ade_numbered=True, ignore_index=0)


def test_figures_of_a_hand_made_confusion():
    metric = MeanIoU(2)
    metric.update_maps(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]]))
    figures = metric.compute()
    assert figures["pixel_accuracy"] == 0.75
    assert figures["mean_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["frequency_weighted_iou"] == pytest.approx(0.75 * 2 / 3 + 0.25 / 2)


def test_each_class_has_its_figures():
    metric = MeanIoU(3)
    metric.update_maps(np.array([[0, 0, 1, 1]]), np.array([[0, 0, 0, 1]]))
    columns = metric.per_class()
    assert list(columns) == ["iou", "accuracy", "hit", "true", "predicted"]
    assert [column[1] for column in columns.values()] == [0.5, 1.0, 1, 1, 2]
    assert [math.isnan(columns[name][2]) for name in ("iou", "accuracy")] == [True, True]


def test_merged_parts_equal_the_whole():
    rng = np.random.default_rng(1)
    maps = rng.integers(0, 6, (4, 2, 9, 11))
    whole, parts = MeanIoU(4, ignore_index=4), [MeanIoU(4, ignore_index=4) for _ in range(2)]
    for index, (prediction, truth) in enumerate(maps):
        whole.update_maps(prediction, truth)
        parts[index % 2].update_maps(prediction, truth)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    for name, column in whole.per_class().items():
        np.testing.assert_array_equal(parts[0].per_class()[name], column, err_msg=name)
    with pytest.raises(ValueError, match="other counts 3 classes"):
        whole.merge(MeanIoU(3))
    with pytest.raises(ValueError, match="use one rule"):
        whole.merge(MeanIoU(4))


def test_unequal_maps_are_refused_with_the_name_of_the_sample():
    with pytest.raises(ValueError, match=r"street: prediction has shape \(2, 3\), truth \(3, 2\)"):
        MeanIoU(2).update_maps(np.zeros((2, 3), int), np.zeros((3, 2), int), name="street")
    with pytest.raises(TypeError, match="street: prediction has dtype float64"):
        MeanIoU(2).update_maps(np.zeros((2, 3)), np.zeros((2, 3), int), name="street")


def test_a_refused_pair_leaves_the_counts_as_they_were():
    metric = MeanIoU(2)
    with pytest.raises(ValueError, match="must be equal"):
        metric.update_maps(np.zeros((1, 3), int), np.zeros((1, 2), int))
    assert metric.confusion.sum() == 0


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes is 0"):
        MeanIoU(0)


def test_plain_maps_are_scored_without_torch():
    code = (
        "import sys, numpy as np\n"
        "from omg_transformers.metrics import clicks, davis_folders, prompt, semantic, video_object, video_semantic\n"
        "maps = np.zeros((3, 4, 5), int)\n"
        "semantic.MeanIoU(2).update_maps(maps, maps)\n"
        "video_semantic.VideoSemanticQuality(2).update_maps(maps, maps)\n"
        "video_object.VideoObjectQuality().update_maps(maps + 1, maps + 1)\n"
        "clicks.RobotUser(maps[0] == 0).next_click()\n"
        "assert not {'torch', 'transformers', 'cv2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
