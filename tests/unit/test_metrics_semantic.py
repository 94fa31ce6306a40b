"""Mean IoU: hand-counted maps, and the figures of Hugging Face's implementation."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.semantic import MeanIoU, class_ious, count_pixels
from omg_transformers.ops.masks import encode_mask
from omg_transformers.structures import Annotation, Segment, Segments

# Not replayed: int_neg_ignore, where true labels outside the classes count against the prediction; here they are void.
OFFICIAL_CASES = (
    "mix",
    "ade_150",
    "pred_out_of_range",
    "all_ignored",
    "one_class",
    "perfect",
    "ignore_zero",
    "ov_847",
)


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
    assert metric.compute() == {"miou": 1.0, "pixel_accuracy": 1.0}


def test_pixels_without_a_predicted_class_are_misses():
    metric = MeanIoU(3)
    metric.update(result_of([[0, -1, -1, 0]]), annotation_of([[0, 0, 1, 1]]))
    figures = metric.compute()
    assert figures["miou"] == pytest.approx((1 / 3 + 0) / 2)
    assert figures["pixel_accuracy"] == 0.25


def test_nothing_counted_is_nan():
    assert all(math.isnan(value) for value in MeanIoU(2).compute().values())


@pytest.mark.parametrize("case", OFFICIAL_CASES)
def test_figures_equal_the_reference(golden_metrics, case):
    folder = golden_metrics / "miou" / case
    expected = json.loads((folder / "expected.json").read_text())
    data = np.load(folder / "data.npz")
    total = 0
    assert expected["n"] > 0
    for index in range(expected["n"]):
        truth = data[f"gt_{index}"].astype(np.int64)
        truth[truth == expected["ignore_index"]] = -1
        total = total + count_pixels(data[f"pred_{index}"].astype(np.int64), truth, expected["num_classes"])
    wanted = np.array(expected["hf_mean_iou"]["per_category_iou"], dtype=float)
    np.testing.assert_allclose(class_ious(total), wanted, atol=1e-9)
    metric = MeanIoU(expected["num_classes"])
    metric.confusion += total
    figures = metric.compute()
    assert figures["miou"] == pytest.approx(expected["hf_mean_iou"]["mean_iou"], abs=1e-9, nan_ok=True)
    accuracy = expected["hf_mean_iou"]["overall_accuracy"]
    assert figures["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-9, nan_ok=True)
