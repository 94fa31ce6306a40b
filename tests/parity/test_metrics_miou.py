"""Mean IoU against Hugging Face's metric (mmseg's formula) and VSPW's evaluator: counts exact, figures to 1e-9."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from omg_transformers.metrics.semantic import MeanIoU

TOLERANCE = {"rtol": 0, "atol": 1e-9}


def cases_of(golden_metrics):
    return {
        name: json.loads((golden_metrics / "miou" / name / "expected.json").read_text())
        for name in names(golden_metrics)
    }


def names(golden_metrics):
    folder = golden_metrics / "miou"
    listed = sorted(json.loads((folder / "index.json").read_text()))
    assert listed == sorted(path.name for path in folder.iterdir() if path.is_dir())
    return listed


def pictures(golden_metrics, name, count):
    data = np.load(golden_metrics / "miou" / name / "data.npz")
    assert len(data.files) == 2 * count > 0
    # The reference was given 64 bits; what a map is stored in must not matter.
    for index in range(count):
        yield index, data[f"pred_{index}"], data[f"gt_{index}"]


def count(golden_metrics, name, expected, **options):
    metric = MeanIoU(
        expected["num_classes"],
        ignore_index=expected["ignore_index"],
        is_ade_numbered=expected["reduce_labels"],
        **options,
    )
    for index, prediction, truth in pictures(golden_metrics, name, expected["n"]):
        metric.update_maps(prediction, truth, name=f"{name}/{index}")
    return metric


def column(metric, key):
    return metric.per_class()[key]


def test_every_case_equals_hugging_face(golden_metrics):
    replayed = 0
    for name, expected in cases_of(golden_metrics).items():
        wanted = expected["hf_mean_iou"]
        if "error" in wanted:
            continue
        metric = count(golden_metrics, name, expected)
        figures, totals = metric.compute(), expected["totals"]
        assert column(metric, "hit").tolist() == totals["intersect"], name
        assert column(metric, "true").tolist() == totals["label"], name
        assert column(metric, "predicted").tolist() == totals["pred"], name
        np.testing.assert_allclose(
            column(metric, "iou"), np.array(wanted["per_category_iou"]), **TOLERANCE, err_msg=name
        )
        np.testing.assert_allclose(
            column(metric, "accuracy"), np.array(wanted["per_category_accuracy"]), **TOLERANCE, err_msg=name
        )
        found = [figures["miou"], figures["mean_accuracy"], figures["pixel_accuracy"]]
        np.testing.assert_allclose(
            found, [wanted["mean_iou"], wanted["mean_accuracy"], wanted["overall_accuracy"]], **TOLERANCE, err_msg=name
        )
        replayed += 1
    assert replayed == sum("error" not in case["hf_mean_iou"] for case in cases_of(golden_metrics).values()) > 0


def test_every_case_equals_vspw(golden_metrics):
    replayed = 0
    cases = {
        name: case["vspw_evaluator"] for name, case in cases_of(golden_metrics).items() if "vspw_evaluator" in case
    }
    for name, wanted in cases.items():
        if "error" in wanted:
            continue
        metric = count(golden_metrics, name, cases_of(golden_metrics)[name], with_false_classes=False)
        figures = metric.compute()
        cells = [
            [*map(int, cell), int(metric.confusion[tuple(cell)])] for cell in np.argwhere(metric.confusion[:, :-1])
        ]
        assert cells == wanted["confusion_nonzero"], name
        found = [figures["miou"], figures["pixel_accuracy"], figures["mean_accuracy"]]
        np.testing.assert_allclose(found, [wanted["mIoU"], wanted["pixel_acc"], wanted["class_acc"]], **TOLERANCE)
        if math.isnan(wanted["mIoU"]):
            # The reference says 0 when nothing is labelled, and NaN for the other three.
            assert wanted["fwIoU"] == 0.0
            assert math.isnan(figures["frequency_weighted_iou"])
        else:
            assert figures["frequency_weighted_iou"] == pytest.approx(wanted["fwIoU"], abs=1e-9), name
        replayed += 1
    assert replayed == sum("error" not in wanted for wanted in cases.values()) > 0


def test_where_vspw_fails_a_prediction_that_is_no_class_is_a_miss(golden_metrics):
    expected = cases_of(golden_metrics)["pred_out_of_range"]
    assert expected["vspw_evaluator"]["error"]["type"] == "ValueError"
    metric = count(golden_metrics, "pred_out_of_range", expected, with_false_classes=False)
    assert metric.confusion[:, -1].sum() > 0
    assert column(metric, "hit").tolist() == expected["totals"]["intersect"]
    assert metric.compute()["pixel_accuracy"] == pytest.approx(expected["hf_mean_iou"]["overall_accuracy"], abs=1e-9)


def test_another_size_is_refused_with_the_name_of_the_picture(golden_metrics):
    expected = cases_of(golden_metrics)["err_size"]
    assert expected["hf_mean_iou"]["error"]["type"] == "IndexError"
    with pytest.raises(ValueError, match=r"err_size/0: prediction has shape \(29, 30\), truth \(30, 30\)"):
        count(golden_metrics, "err_size", expected)
