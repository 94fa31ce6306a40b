"""Video panoptic quality and STQ against the VIPSeg script, OMG-Seg's own code and deeplab2."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from omg_transformers.metrics.segmentation_tracking import SegmentationTrackingQuality
from omg_transformers.metrics.video_panoptic import OMGSegVideoPanopticQuality, VideoPanopticQuality

# OMG-Seg writes class * 10000 + instance: with larger instance numbers it reads other classes back.
OMGSEG_OFFSET = 10_000


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "vps"
    found = {}
    for name in json.loads((folder / "index.json").read_text()):
        expected = json.loads((folder / name / "expected.json").read_text())
        with np.load(folder / name / "data.npz") as arrays:
            videos = [read_video(arrays, number) for number in range(expected["n_videos"])]
        found[name] = expected, videos
    assert len(found) == len([path for path in folder.iterdir() if path.is_dir()])
    assert len(found) >= 15
    return found


def read_video(arrays, number):
    video = {kind: arrays[f"v{number}_{kind}"] for kind in ("gt_cat", "gt_ins", "pred_cat", "pred_ins", "gt_crowd")}
    weights = f"v{number}_weights"
    return {**video, "weights": arrays[weights] if weights in arrays.files else None}


def fill(metric, expected, videos, *, crowds=True, **options):
    for video in videos:
        metric.update_class_maps(
            (video["pred_cat"], video["pred_ins"]),
            (video["gt_cat"], video["gt_ins"]),
            void=expected["void"],
            crowds=[tuple(map(int, crowd)) for crowd in video["gt_crowd"]] if crowds else (),
            **{name: video[value] for name, value in options.items()},
        )
    return metric


def things(expected):
    return [label in expected["thing_classes"] for label in range(expected["num_classes"])]


def zero_if_nan(values):
    """The references write 0 for classes that occur nowhere."""
    return [0.0 if math.isnan(value) else value for value in values]


def test_vpq_equals_the_vipseg_script(cases):
    compared = 0
    for name, (expected, videos) in cases.items():
        metric = VideoPanopticQuality(expected["num_classes"], things(expected), windows=expected["windows"])
        figures, tables = fill(metric, expected, videos).compute(), metric.per_class()
        for window in expected["windows"]:
            wanted = expected["vpq_vipseg_official"][f"nframes_{window}"]
            for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
                found = [figures[f"{key}_{window}{suffix}"] for key in ("vpq", "sq", "rq")]
                if "error" in wanted[group]:
                    assert all(map(math.isnan, found)), (name, window, group)
                    continue
                assert found == pytest.approx([wanted[group][key] for key in ("pq", "sq", "rq")], abs=1e-9), name
                compared += 1
            for label, row in wanted.get("per_class", wanted["All"].get("per_class", {})).items():
                for key, value in row.items():
                    tolerance = 0 if key in ("tp", "fp", "fn") else 1e-9
                    found = tables[f"{'vpq' if key == 'pq' else key}_{window}"][int(label)]
                    found = 0.0 if math.isnan(found) else found
                    assert found == pytest.approx(value, abs=tolerance, rel=0), (name, window, label, key)
    assert compared >= 3 * len(cases)


def test_the_mean_over_windows_is_that_of_the_vipseg_script(cases):
    expected, videos = cases["mix_a"]
    windows = expected["windows"]
    metric = fill(VideoPanopticQuality(expected["num_classes"], things(expected), windows=windows), expected, videos)
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        wanted = [expected["vpq_vipseg_official"][f"nframes_{window}"][group]["pq"] for window in windows]
        assert metric.compute()[f"vpq{suffix}"] == pytest.approx(np.mean(wanted), abs=1e-9)


def holds_large_ids(videos):
    return any(video[side].max() >= OMGSEG_OFFSET for video in videos for side in ("gt_ins", "pred_ins"))


def test_the_omgseg_variant_equals_its_online_metric(cases):
    compared, skipped = 0, []
    for name, (expected, videos) in cases.items():
        if holds_large_ids(videos):
            skipped.append(name)
            continue
        metric = OMGSegVideoPanopticQuality(expected["num_classes"], things(expected), windows=expected["windows"])
        figures, tables = fill(metric, expected, videos).compute(), metric.per_class()
        for window in expected["windows"]:
            wanted = expected["vpq_omgseg_online"][f"VPQ@{window}"]
            if "error" in wanted:
                assert math.isnan(figures[f"omgseg_vpq_{window}"]) or math.isnan(
                    figures[f"omgseg_vpq_{window}_things"] + figures[f"omgseg_vpq_{window}_stuff"]
                ), (name, window)
                continue
            for group, suffix in (("", ""), ("_th", "_things"), ("_st", "_stuff")):
                found = [100 * figures[f"{key}_{window}{suffix}"] for key in ("omgseg_vpq", "sq", "rq")]
                theirs = [wanted[f"VPQ@{window}_{key}{group}"] for key in ("PQ", "SQ", "RQ")]
                assert found == pytest.approx(theirs, abs=1e-9), (name, window, group)
            for label, row in wanted[f"VPQ@{window}_classwise"].items():
                names = {"pq": "omgseg_vpq"}
                found = zero_if_nan(tables[f"{names.get(key, key)}_{window}"][int(label)] for key in row)
                assert found == pytest.approx(list(row.values()), abs=1e-9), (name, window, label)
            compared += 1
    assert compared > len(cases)
    assert skipped == ["large_ids"]


def test_vpq_without_crowds_equals_the_omgseg_offline_tool(cases):
    compared = 0
    for name, (expected, videos) in cases.items():
        if holds_large_ids(videos):
            continue
        metric = VideoPanopticQuality(expected["num_classes"], things(expected), windows=expected["windows"])
        tables = fill(metric, expected, videos, crowds=False).per_class()
        for window in expected["windows"]:
            wanted = expected["vpq_omgseg_offline_tool"][f"nframes_{window}"]
            if "error" in wanted:
                assert metric.num_windows[window] == 0
                continue
            for key in ("tp", "fp", "fn"):
                assert tables[f"{key}_{window}"].tolist() == wanted[key], (name, window)
            assert tables[f"iou_{window}"].tolist() == pytest.approx(wanted["iou"], abs=1e-9)
            values = np.array(zero_if_nan(tables[f"vpq_{window}"]))
            assert values.tolist() == pytest.approx(wanted["pq_per_class"], abs=1e-9)
            # The tool takes the mean over all classes, also those that occur nowhere.
            is_thing = np.array(things(expected))
            means = [values.mean(), values[is_thing].mean(), values[~is_thing].mean()]
            assert means == pytest.approx([wanted[key] for key in ("PQ", "PQ_thing", "PQ_stuff")], abs=1e-9)
            compared += 1
    assert compared > len(cases)


def check_stq(name, metric, wanted):
    figures = metric.compute()
    for key, value in (("stq", "STQ"), ("aq", "AQ"), ("sq", "IoU")):
        assert figures[key] == pytest.approx(wanted[value], abs=1e-6, nan_ok=True), (name, key)
    rows = metric.per_video()
    assert [row["frames"] for row in rows] == wanted["Length_per_seq"]
    for key, value in (("stq", "STQ_per_seq"), ("aq", "AQ_per_seq"), ("sq", "IoU_per_seq")):
        assert [row[key] for row in rows] == pytest.approx(wanted[value], abs=1e-6, nan_ok=True), (name, key)


def test_stq_equals_deeplab2(cases):
    for name, (expected, videos) in cases.items():
        metric = SegmentationTrackingQuality(expected["num_classes"], things(expected))
        check_stq(name, fill(metric, expected, videos), expected["stq_deeplab2"])


def test_weighted_stq_equals_deeplab2(cases):
    weighted = {name: case for name, case in cases.items() if "stq_deeplab2_weighted" in case[0]}
    assert weighted
    for name, (expected, videos) in weighted.items():
        metric = SegmentationTrackingQuality(expected["num_classes"], things(expected))
        check_stq(name, fill(metric, expected, videos, weights="weights"), expected["stq_deeplab2_weighted"])
