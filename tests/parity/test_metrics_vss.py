"""VSPW's mean IoU and video consistency, clip by clip, to 1e-9."""

from __future__ import annotations

import json

import numpy as np
import pytest

from omg_transformers.metrics.video_semantic import VideoSemanticQuality, clip_consistencies


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "vss"
    listed = json.loads((folder / "index.json").read_text())
    assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.is_dir())
    return {
        name: (json.loads((folder / name / "expected.json").read_text()), np.load(folder / name / "data.npz"))
        for name in listed
    }


def lengths_of(expected):
    return {int(name.removeprefix("VC")): wanted for name, wanted in expected["vspw_vc"].items()}


def test_every_clip_and_video_equals_the_reference(cases):
    clips = 0
    for name, (expected, data) in cases.items():
        lengths = lengths_of(expected)
        metric = VideoSemanticQuality(
            expected["num_classes"], clip_lengths=list(lengths), ignore_index=expected["void"]
        )
        per_clip = {length: [] for length in lengths}
        assert expected["n_videos"] == len(expected["lengths"]) > 0
        for index in range(expected["n_videos"]):
            prediction, truth = data[f"pred_{index}"], data[f"gt_{index}"]
            assert len(truth) == expected["lengths"][index]
            metric.update_maps(prediction, truth, name=f"{name}/{index}")
            for length, shares in clip_consistencies(prediction, truth, lengths).items():
                per_clip[length] += shares.tolist()
        figures = metric.compute()
        for length, wanted in lengths.items():
            np.testing.assert_allclose(per_clip[length], wanted["per_clip"], rtol=0, atol=1e-9, err_msg=name)
            assert figures[f"mvc{length}"] == pytest.approx(wanted["mVC"], abs=1e-9, nan_ok=True), (name, length)
            videos = [row[f"vc{length}"] for row in metric.per_video()]
            np.testing.assert_allclose(videos, np.array(wanted["per_video"], dtype=float), rtol=0, atol=1e-9)
            clips += len(wanted["per_clip"])
    assert clips > 0


def test_mean_iou_of_every_case_equals_vspw_and_hugging_face(cases):
    for name, (expected, data) in cases.items():
        metric = VideoSemanticQuality(expected["num_classes"], ignore_index=expected["void"])
        for index in range(expected["n_videos"]):
            metric.update_maps(data[f"pred_{index}"], data[f"gt_{index}"])
        wanted, figures = expected["vspw_evaluator"], metric.pixels.compute()
        found = [metric.compute()["miou"], figures["pixel_accuracy"], figures["mean_accuracy"]]
        found.append(figures["frequency_weighted_iou"])
        values = [wanted["mIoU"], wanted["pixel_acc"], wanted["class_acc"], wanted["fwIoU"]]
        np.testing.assert_allclose(found, values, rtol=0, atol=1e-9, err_msg=name)
        confusion = metric.pixels.confusion
        cells = [[*map(int, cell), int(confusion[tuple(cell)])] for cell in np.argwhere(confusion[:, :-1])]
        assert cells == wanted["confusion_nonzero"]
        metric.pixels.with_false_classes = True
        ious = np.array(expected["hf_mean_iou"]["per_category_iou"], dtype=float)
        np.testing.assert_allclose(metric.pixels.ious(), ious, rtol=0, atol=1e-9)
        assert metric.pixels.compute()["miou"] == pytest.approx(expected["hf_mean_iou"]["mean_iou"], abs=1e-9)


def test_videos_the_reference_skips_are_named(cases):
    expected, data = cases["mix"]
    metric = VideoSemanticQuality(expected["num_classes"], clip_lengths=(8,), ignore_index=expected["void"])
    for index in range(expected["n_videos"]):
        metric.update_maps(data[f"pred_{index}"], data[f"gt_{index}"], name=f"video{index}")
    short = [index for index, length in enumerate(expected["lengths"]) if length <= 8]
    assert [line.partition(":")[0] for line in metric.skipped] == [f"video{index}" for index in short]
