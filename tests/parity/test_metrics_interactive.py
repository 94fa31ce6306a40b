"""The robot user's clicks, IoUs after each click, and numbers of clicks of RITM's evaluation."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from omg_transformers.metrics.clicks import Click, ClickMetric, RobotUser
from omg_transformers.metrics.prompt import mask_iou

# OMG-Seg's own variant adds this to the union, so two empty masks give 0.
OMG_EPSILON = 1e-8


@pytest.fixture(scope="module")
def recorded(golden_metrics):
    folder = golden_metrics / "interactive"
    expected = json.loads((folder / "expected.json").read_text())
    data = np.load(folder / "data.npz")
    assert len(expected["samples"]) == sum(name.startswith("gt") for name in data.files) > 0
    return SimpleNamespace(expected=expected, data=data)


def robot_of(data, index):
    truth = data[f"gt{index}"]
    return RobotUser(truth == 1, truth == -1)


def test_every_click_is_the_reference_s_or_one_as_deep(recorded):
    clicks = others = 0
    for sample in recorded.expected["samples"]:
        predictions = recorded.data[f"preds{sample['index']}"]
        robot, mask = robot_of(recorded.data, sample["index"]), None
        assert len(sample["clicks_yx_positive"]) == len(predictions)
        for (y, x, is_positive), prediction in zip(sample["clicks_yx_positive"], predictions, strict=True):
            wanted, found = Click(x, y, is_positive), robot.next_click(mask)
            if found != wanted:
                # Equally deep, told apart by the last bit of the reference's 32-bit distances.
                assert found.is_positive == wanted.is_positive
                robot.clicks.pop()
                current = np.zeros_like(robot.truth) if mask is None else mask
                errors = robot.truth & ~current if is_positive else current & ~robot.truth
                depths = robot._depths(errors)
                assert depths[y, x] == depths.max() > 0
                robot.clicks.append(wanted)
                others += 1
            clicks += 1
            mask = prediction
    assert clicks == sum(len(sample["clicks_yx_positive"]) for sample in recorded.expected["samples"]) > 0
    assert others <= max(1, clicks // 50)


def test_iou_after_every_click_equals_the_reference(recorded):
    for sample in recorded.expected["samples"]:
        robot = robot_of(recorded.data, sample["index"])
        found = [robot.iou(prediction) for prediction in recorded.data[f"preds{sample['index']}"]]
        np.testing.assert_allclose(found, sample["ious"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("max_clicks", [10, 20])
def test_numbers_of_clicks_equal_the_reference(recorded, max_clicks):
    expected = recorded.expected
    after = [int(number) for number in expected["mIoU_at_k"] if int(number) <= max_clicks]
    metric = ClickMetric(max_clicks=max_clicks, thresholds=expected["thresholds"], after_clicks=after)
    for sample in expected["samples"]:
        metric.update(sample["ious"], name=str(sample["index"]))
    figures = metric.compute()
    titles = [f"{100 * threshold:g}" for threshold in expected["thresholds"]]
    assert [figures[f"noc_{title}"] for title in titles] == pytest.approx(expected[f"NoC_{max_clicks}"], abs=1e-9)
    assert [figures[f"over_max_{title}"] for title in titles] == expected[f"over_max_{max_clicks}"]
    for number in after:
        assert figures[f"iou_{number}"] == pytest.approx(expected["mIoU_at_k"][str(number)], abs=1e-9)
    assert metric.mean_iou(1) == pytest.approx(expected["mIoU_at_1_click"], abs=1e-9)


def test_omg_seg_s_own_iou_differs_only_where_both_masks_are_empty(recorded):
    wanted = recorded.expected["omgseg_ins_cls_iou"]
    ours, theirs, num_empty = [], [], 0
    for index, ious in enumerate(wanted["per_image_ious"]):
        truths, predictions = recorded.data[f"omg_gt{index}"], recorded.data[f"omg_pred{index}"]
        assert len(truths) == len(ious)
        for truth, prediction, iou in zip(truths.astype(bool), predictions.astype(bool), ious, strict=True):
            ours.append(mask_iou(prediction, truth))
            theirs.append((prediction & truth).sum() / ((prediction | truth).sum() + OMG_EPSILON))
            assert theirs[-1] == pytest.approx(iou, abs=1e-6)
            is_empty = not (prediction | truth).any()
            num_empty += is_empty
            assert ours[-1] == pytest.approx(1.0 if is_empty else iou, abs=1e-6)
    assert np.mean(theirs) == pytest.approx(wanted["result"]["miou"], abs=1e-6)
    assert math.fsum(ours) == pytest.approx(math.fsum(theirs) + num_empty, abs=1e-5)
