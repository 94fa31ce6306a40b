"""Video panoptic quality on hand-made clips, and how videos come in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics import video_panoptic
from omg_transformers.metrics.panoptic import PanopticQuality
from omg_transformers.metrics.video_panoptic import (
    OMGSegVideoPanopticQuality,
    TubeOverlaps,
    VideoPanopticQuality,
    join_ids,
    joined_classes,
)
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, Segment, Segments

METRICS = (VideoPanopticQuality, OMGSegVideoPanopticQuality)
CLASSES = {1: 0, 2: 0, 3: 1}


def clip(*frames):
    return np.array(frames)[:, None]


def random_clips(seed, num_frames=7):
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 4, (num_frames, 4, 6))
    prediction = np.where(generator.random(truth.shape) < 0.75, truth, generator.integers(0, 4, truth.shape))
    return prediction, truth


def test_an_identity_switch_costs_only_windows_that_see_it():
    metric = VideoPanopticQuality(2, windows=(1, 2, 4))
    metric.update_maps(clip([1, 1], [1, 1], [2, 2], [2, 2]), clip(*[[1, 1]] * 4), CLASSES, CLASSES)
    figures = metric.compute()
    assert figures["vpq_1"] == 1
    # Three windows of two frames: in the middle one either half has an IoU of just one half.
    assert figures["vpq_2"] == pytest.approx(2 / (2 + 0.5 * 2 + 0.5))
    assert figures["vpq_4"] == 0
    assert figures["vpq"] == pytest.approx((1 + figures["vpq_2"]) / 3)


def test_the_omgseg_variant_does_not_see_identity_switches():
    metric = OMGSegVideoPanopticQuality(2, windows=(1, 2, 4))
    metric.update_maps(clip([1, 1], [1, 1], [2, 2], [2, 2]), clip(*[[1, 1]] * 4), CLASSES, CLASSES)
    assert [metric.compute()[f"omgseg_vpq_{window}"] for window in (1, 2, 4)] == [1, 1, 1]


@pytest.mark.parametrize("window", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_windows_are_pictures_of_their_frames_side_by_side(seed, window):
    prediction, truth = random_clips(seed)
    metric, pictures = VideoPanopticQuality(2, windows=(window,)), PanopticQuality(2)
    metric.update_maps(prediction, truth, CLASSES, CLASSES, crowd_ids=(2,))
    for start in range(len(truth) - window + 1):
        part = slice(start, start + window)
        pictures.update_maps(
            np.concatenate(list(prediction[part]), axis=1),
            np.concatenate(list(truth[part]), axis=1),
            CLASSES,
            CLASSES,
            crowd_ids=(2,),
        )
    for name, column in pictures.per_class().items():
        np.testing.assert_allclose(metric.per_class()[f"{name.replace('pq', 'vpq')}_{window}"], column, err_msg=name)


def test_long_videos_are_summed_piece_by_piece(monkeypatch):
    tables = []
    for cells in (video_panoptic.MAX_CELLS, 40):
        monkeypatch.setattr(video_panoptic, "MAX_CELLS", cells)
        metric = VideoPanopticQuality(2, windows=(1, 3))
        metric.update_maps(*random_clips(0, num_frames=11), CLASSES, CLASSES)
        tables.append((metric.per_class(), metric.num_windows))
    assert tables[0][1] == tables[1][1] == {1: 11, 3: 9}
    for name, column in tables[0][0].items():
        np.testing.assert_allclose(tables[1][0][name], column, err_msg=name)


def test_of_two_crowds_of_a_class_the_last_to_come_in_excuses():
    truth = clip([1, 1, 3, 3], [2, 2, 3, 3])
    prediction = clip([7, 7, 3, 3], [7, 7, 3, 3])
    metric = VideoPanopticQuality(2, windows=(2,))
    metric.update_maps(prediction, truth, {7: 0, 3: 1}, CLASSES, crowd_ids=(2, 1))
    # Just half of the prediction lies in crowd 2, so that it is wrong; in both crowds together it would be excused.
    assert metric.per_class()["fp_2"].tolist() == [1, 0]
    metric = VideoPanopticQuality(2, windows=(1,))
    metric.update_maps(prediction, truth, {7: 0, 3: 1}, CLASSES, crowd_ids=(2, 1))
    assert metric.per_class()["fp_1"].tolist() == [0, 0]


@pytest.mark.parametrize("kind", METRICS)
def test_windows_longer_than_the_video_are_nan(kind):
    metric = kind(2, windows=(1, 2))
    metric.update_maps(clip([1]), clip([1]), CLASSES, CLASSES)
    figures = metric.compute()
    assert figures[f"{kind.name}_1"] == 1
    assert math.isnan(figures[f"{kind.name}_2"])
    assert math.isnan(figures.get("vpq", math.nan))


@pytest.mark.parametrize("kind", METRICS)
def test_merged_metrics_equal_one_metric(kind):
    whole, first, second = (kind(2, windows=(1, 2)) for _ in range(3))
    for seed in range(4):
        for metric in (whole, (first, second)[seed % 2]):
            metric.update_maps(*random_clips(seed), CLASSES, CLASSES)
    first.merge(second)
    assert first.compute() == pytest.approx(whole.compute(), nan_ok=True)
    assert first.num_windows == whole.num_windows == {1: 28, 2: 24}


def test_metrics_of_other_windows_do_not_merge():
    with pytest.raises(ValueError, match=r"windows \(1,\) into one of \(1, 2\)"):
        VideoPanopticQuality(2, windows=(1, 2)).merge(VideoPanopticQuality(2, windows=(1,)))


@pytest.mark.parametrize("windows", [(), (0,), (1, 1)])
def test_windows_must_be_different_positive_numbers(windows):
    with pytest.raises(ValueError, match="windows is"):
        VideoPanopticQuality(2, windows=windows)


def test_class_and_instance_maps_give_the_same_as_ids():
    prediction, truth = random_clips(3)
    by_ids, by_maps = (VideoPanopticQuality(4, windows=(1, 2)) for _ in range(2))
    classes = {1: 0, 2: 1, 3: 2}
    by_ids.update_maps(prediction, truth, classes, classes)
    # Class = id - 1; void is 255.
    maps = [(np.where(ids == 0, 255, ids - 1), np.full_like(ids, 9)) for ids in (prediction, truth)]
    by_maps.update_class_maps(*maps)
    assert by_maps.compute() == pytest.approx(by_ids.compute(), nan_ok=True)


def test_ids_of_class_and_instance_keep_both():
    ids = join_ids(np.array([[0, 2, 255]]), np.array([[0, 65535, 7]]), num_classes=3)
    assert ids.tolist() == [[1, 3 + 3 * 65535, 0]]
    assert joined_classes(ids.ravel().tolist(), 3) == {1: 0, 3 + 3 * 65535: 2}


@pytest.mark.parametrize(
    ("classes", "instances", "message"),
    [
        ([[3]], [[0]], "class map holds 0 to 3|class map holds 3"),
        ([[-1]], [[0]], "class map holds -1"),
        ([[0]], [[-2]], "instances holds -2"),
        ([[0]], [[2**31]], "instances holds"),
        ([[0]], [[0, 0]], "make them equal"),
    ],
)
def test_class_and_instance_maps_out_of_range_are_refused(classes, instances, message):
    with pytest.raises(ValueError, match=message):
        join_ids(np.array(classes), np.array(instances), num_classes=3)


def test_videos_of_different_length_are_refused():
    with pytest.raises(ValueError, match="differ in length after 2 frames"):
        TubeOverlaps.of_frames(clip([1], [1]), clip([1], [1], [1]))


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        TubeOverlaps.of_frames(clip([1, 1]), clip([1]))


def test_videos_without_frames_are_refused():
    with pytest.raises(ValueError, match="no frames"):
        TubeOverlaps.of_frames([], [])


def test_unknown_crowds_and_ids_are_refused():
    metric = VideoPanopticQuality(2)
    with pytest.raises(ValueError, match="crowd_ids holds 9"):
        metric.update_maps(clip([1]), clip([1]), CLASSES, CLASSES, crowd_ids=(9,))
    with pytest.raises(ValueError, match=r"prediction holds ids without a class: \[8\]"):
        metric.update_maps(clip([8]), clip([1]), CLASSES, CLASSES)


def test_weights_are_for_stq_only():
    maps = (np.zeros((1, 1, 2), dtype=int), np.zeros((1, 1, 2), dtype=int))
    with pytest.raises(ValueError, match="leave them out"):
        VideoPanopticQuality(2).update_class_maps(maps, maps, weights=np.ones((1, 1, 2)))


@pytest.mark.parametrize("kind", METRICS)
def test_results_of_the_model_are_counted(kind):
    masks = torch.tensor([[[1, 1, 0]], [[1, 1, 0]]]).bool()
    annotation = Annotation((1, 3), (True, False), (Segment(0, encode_masks(masks), track_id=4),), (None, None))
    ids = torch.tensor([[[6, 6, 0]], [[6, 0, 0]]], dtype=torch.int32)
    metric = kind(2, windows=(1, 2))
    metric.update(Segments((1, 3), torch.tensor([6]), torch.tensor([0]), torch.ones(1), ids), annotation)
    assert metric.is_thing == (True, False)
    assert metric.compute()[f"{kind.name}_2_things"] == 0.75
    # A half is no match.
    assert metric.per_class()["tp_1"].tolist() == [1, 0]
