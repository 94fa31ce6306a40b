"""Video consistency on clips small enough to count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.video_semantic import VideoSemanticQuality, clip_consistencies
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, Segment, Segments


def video(*frames):
    return np.array(frames)[:, None]


def plain_consistencies(prediction, truth, length):
    """The definition, clip by clip."""
    shares = []
    for start in range(len(truth) - length):
        clip = slice(start, start + length)
        stays = (truth[clip] == truth[start]).all(0)
        both = stays & (prediction[clip] == prediction[start]).all(0)
        shares.append(both.sum() / stays.sum() if stays.any() else math.nan)
    return shares


def test_a_share_is_of_the_pixels_whose_truth_stays():
    truth = video([0, 0, 1, 1], [0, 0, 1, 2], [9, 9, 9, 9])
    prediction = video([5, 0, 1, 0], [5, 3, 1, 4], [9, 9, 9, 9])
    assert clip_consistencies(prediction, truth, [2])[2].tolist() == [pytest.approx(2 / 3)]


def test_the_last_clip_is_never_used():
    truth = video(*[[0, 0]] * 5)
    prediction = video(*[[0, 0]] * 4, [1, 1])
    assert clip_consistencies(prediction, truth, [2])[2].tolist() == [1.0] * 3


@pytest.mark.parametrize("length", [2, 3, 5, 8])
def test_one_pass_over_the_frames_equals_the_definition(length):
    rng = np.random.default_rng(length)
    prediction, truth = (np.repeat(rng.integers(0, 3, (2, 6, 5, 7)), 3, axis=1) for _ in range(2))
    found = clip_consistencies(prediction[0], truth[1], [length])[length]
    np.testing.assert_allclose(found, plain_consistencies(prediction[0], truth[1], length), rtol=0, atol=1e-12)
    assert len(found) == 18 - length


def test_a_constant_but_wrong_prediction_is_consistent():
    metric = VideoSemanticQuality(4, clip_lengths=[2])
    metric.update_maps(video(*[[3, 3]] * 4), video(*[[0, 1]] * 4))
    assert metric.compute() == {"miou": 0.0, "mvc2": 1.0}


def test_clips_of_all_videos_are_pooled():
    still, other = video(*[[0, 0]] * 5), video(*[[0, 0]] * 4)
    restless = video([0, 0], [1, 0], [0, 0], [0, 0])
    metric = VideoSemanticQuality(2, clip_lengths=[2])
    metric.update_maps(still, still, name="still")
    metric.update_maps(restless, other, name="restless")
    # Three clips of 1 and two of 1/2, not the mean of the videos' means.
    assert metric.compute()["mvc2"] == pytest.approx((3 + 1) / 5)
    assert [row["vc2"] for row in metric.per_video()] == [1.0, 0.5]
    assert [row["clips2"] for row in metric.per_video()] == [3, 2]


def test_what_has_no_clip_is_named():
    metric = VideoSemanticQuality(9, clip_lengths=[2])
    metric.update_maps(video([0, 0], [0, 0]), video([0, 0], [0, 0]), name="short")
    metric.update_maps(video([0, 0], [0, 0], [0, 0]), video([0, 0], [1, 1], [0, 0]), name="restless")
    assert metric.skipped == [
        "short: 2 frames, mvc2 needs more than 2",
        "restless: 1 clips of 2 frames keep no true label",
    ]
    assert math.isnan(metric.compute()["mvc2"])


def test_classes_absent_from_the_truth_are_left_out_of_the_mean():
    metric = VideoSemanticQuality(3)
    metric.update_maps(video([0, 0, 0, 2]), video([0, 0, 0, 0]))
    assert metric.compute()["miou"] == 0.75


def test_segments_and_annotations_count_like_maps():
    truth, prediction = video([0, 0, 1, 1], [0, 0, 1, 0], [0, 1, 1, 1]), video([0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1])
    by_maps, by_segments = VideoSemanticQuality(2, clip_lengths=[2]), VideoSemanticQuality(2, clip_lengths=[2])
    by_maps.update_maps(prediction, truth)
    segments = tuple(Segment(label, encode_masks(torch.from_numpy(truth == label))) for label in (0, 1))
    ids = torch.tensor([1, 2])
    result = Segments((1, 4), ids, ids - 1, torch.ones(2), id_map=torch.from_numpy(prediction + 1).int())
    by_segments.update(result, Annotation((1, 4), (True, False), segments, (None,) * 3))
    assert by_segments.compute() == by_maps.compute()


def test_merged_parts_equal_the_whole():
    rng = np.random.default_rng(0)
    whole, *parts = (VideoSemanticQuality(3, clip_lengths=[2, 3]) for _ in range(3))
    for index in range(4):
        maps = rng.integers(0, 3, (2, 6, 4, 5))
        whole.update_maps(*maps)
        parts[index // 2].update_maps(*maps)
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    assert parts[0].per_video() == whole.per_video()
    with pytest.raises(ValueError, match="clip_lengths"):
        whole.merge(VideoSemanticQuality(3))


def test_bad_input_is_refused_and_named():
    metric = VideoSemanticQuality(3)
    with pytest.raises(ValueError, match=r"clip_1: prediction has shape \(2, 3, 4\), truth \(3, 3, 4\)"):
        metric.update_maps(np.zeros((2, 3, 4), int), np.zeros((3, 3, 4), int), name="clip_1")
    with pytest.raises(ValueError, match=r"clip_1 has shape \(3, 4\): expected class maps \(T, H, W\)"):
        metric.update_maps(np.zeros((3, 4), int), np.zeros((3, 4), int), name="clip_1")
    with pytest.raises(ValueError, match="each at least 2"):
        VideoSemanticQuality(3, clip_lengths=[1])
    assert metric.pixels.confusion.sum() == 0
    assert metric.videos == []
