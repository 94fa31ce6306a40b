"""YouTube-VIS average precision: hand-counted tracks, and files that are not in order."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.video_average_precision import (
    VideoMaskAveragePrecision,
    score_youtube_vis_results,
    track_ious,
)
from omg_transformers.ops.masks import encode_mask
from omg_transformers.structures import Annotation, Segment, Segments

SIZE = (4, 8)


def rectangle(rows, columns, size=SIZE):
    mask = np.zeros(size, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return encode_mask(mask)


LEFT, RIGHT = rectangle((0, 4), (0, 4)), rectangle((0, 4), (4, 8))
DOT = rectangle((0, 1), (0, 1))


def result_of(*tracks):
    """(masks, label, score) of each track."""
    return Segments(
        SIZE,
        torch.arange(1, len(tracks) + 1),
        torch.tensor([track[1] for track in tracks], dtype=torch.long),
        torch.tensor([track[2] for track in tracks], dtype=torch.float32),
        rles=tuple(tuple(track[0]) for track in tracks),
    )


def annotation_of(*segments, frames=2):
    return Annotation(SIZE, (True, True, False), tuple(segments), (None,) * frames)


def test_a_track_is_compared_over_all_its_frames():
    ious = track_ious([[LEFT, None], [LEFT, LEFT], [None, RIGHT]], [[LEFT, LEFT], [RIGHT, RIGHT]])
    np.testing.assert_allclose(ious, [[0.5, 0], [1, 0], [0, 0.5]])


def test_a_shorter_track_is_compared_on_its_own_frames():
    assert track_ious([[LEFT]], [[LEFT, LEFT]]).tolist() == [[1.0]]


def test_tracks_without_any_mask_do_not_overlap():
    assert track_ious([[None, None]], [[None, None]]).tolist() == [[0.0]]
    assert track_ious([], [[LEFT]]).shape == (0, 1)


def test_tracks_of_different_size_are_refused():
    with pytest.raises(ValueError, match="frame 0 differ in size"):
        track_ious([[rectangle((0, 4), (0, 4), (5, 8))]], [[LEFT]])


def test_a_lost_frame_counts():
    metric = VideoMaskAveragePrecision(3)
    metric.update(result_of(([LEFT, LEFT, None], 0, 0.9)), annotation_of(Segment(0, (LEFT,) * 3), frames=3))
    assert metric.compute()["ap"] == pytest.approx(0.4)  # IoU 2/3: right at 0.50, 0.55, 0.60, 0.65


def test_sizes_are_means_over_the_frames_that_show_the_object():
    size = (200, 200)
    big, small = rectangle((0, 180), (0, 180), size), rectangle((0, 10), (0, 10), size)
    metric = VideoMaskAveragePrecision(1)
    truth = Annotation(size, (True,), (Segment(0, (big, None, small)),), (None,) * 3)
    metric.update(
        Segments(size, torch.tensor([1]), torch.tensor([0]), torch.ones(1), rles=((big, None, small),)), truth
    )
    figures = metric.compute()
    assert figures["ap_small"] == pytest.approx(1.0)  # (180^2 + 10^2) / 2 < 128^2
    assert math.isnan(figures["ap_medium"])


def test_a_crowd_excuses_what_covers_it_but_not_a_small_part_of_it():
    truth = annotation_of(Segment(0, (LEFT, LEFT)), Segment(0, (RIGHT, RIGHT), is_crowd=True))
    covering, inside = VideoMaskAveragePrecision(3), VideoMaskAveragePrecision(3)
    covering.update(result_of(([RIGHT, RIGHT], 0, 0.9), ([LEFT, LEFT], 0, 0.8)), truth)
    part = rectangle((0, 1), (4, 8))
    inside.update(result_of(([part, part], 0, 0.9), ([LEFT, LEFT], 0, 0.8)), truth)
    assert covering.compute()["ap"] == pytest.approx(1.0)
    # Half of COCO's way: there a crowd excuses whatever lies inside it.
    assert inside.compute()["ap"] == pytest.approx(0.5)


def test_stuff_and_nameless_tracks_are_not_judged():
    truth = annotation_of(Segment(0, (LEFT, LEFT)), Segment(2, (RIGHT, RIGHT)), Segment(-1, (RIGHT, None)))
    metric = VideoMaskAveragePrecision(3)
    metric.update(result_of(([RIGHT] * 2, 2, 0.9), ([RIGHT] * 2, -1, 0.9), ([LEFT] * 2, 0, 0.8)), truth)
    assert metric.compute()["ap"] == pytest.approx(1.0)
    assert metric.per_class()["ap"][0] == pytest.approx(1.0)


def test_videos_of_different_length_are_refused():
    with pytest.raises(ValueError, match=r"rles\[0\] has 1 frames, the annotation 2"):
        VideoMaskAveragePrecision(3).update(result_of(([LEFT], 0, 0.9)), annotation_of(Segment(0, (LEFT, LEFT))))


def test_merged_parts_equal_one_pass():
    videos = [
        (result_of(([LEFT, DOT], 0, 0.3 * index), ([RIGHT, RIGHT], 1, 0.5)), annotation_of(Segment(0, (LEFT, LEFT))))
        for index in range(3)
    ]
    one, first, second = (VideoMaskAveragePrecision(3) for _ in range(3))
    for index, video in enumerate(videos):
        one.update(*video, key=index)
        (first if index == 1 else second).update(*video, key=index)
    first.merge(second)
    assert first.compute() == pytest.approx(one.compute(), abs=0, nan_ok=True)


def text(rle):
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def truth_file(**changes):
    annotation = {"id": 1, "video_id": 7, "category_id": 3, "iscrowd": 0, "segmentations": [text(LEFT), None]}
    return {
        "videos": [{"id": 7, "height": 4, "width": 8, "length": 2}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [annotation],
    } | changes


def results_file(**changes):
    return [{"video_id": 7, "category_id": 3, "score": 0.5, "segmentations": [text(LEFT), None]} | changes]


def test_a_file_is_scored_and_its_rows_name_the_classes():
    scores = score_youtube_vis_results(truth_file(), results_file())
    assert scores.figures["ap"] == pytest.approx(1.0)
    assert (scores.category_ids, scores.category_names) == ((3,), ("cat",))
    assert scores.notes == ()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (results_file(video_id=8), r"r\.json: result 0 \(video 8, category 3\): t\.json has no video 8"),
        (results_file(score=math.nan), "score is nan"),
        (results_file(segmentations=[None] * 3), "has 3 frames, its video 2"),
        (results_file(segmentations=None), "expected a list"),
        (
            results_file(segmentations=[text(LEFT) | {"size": [4, 7]}, None]),
            r"result 0 .*frame 0: counts covers 32 of 28",
        ),
        (results_file(segmentations=[text(rectangle((0, 4), (0, 4), (4, 7)))]), r"size \(4, 7\), the video \(4, 8\)"),
    ],
)
def test_results_that_do_not_fit_are_refused_by_file_and_id(tmp_path, results, message):
    paths = tmp_path / "t.json", tmp_path / "r.json"
    for path, content in zip(paths, (truth_file(), results), strict=True):
        path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        score_youtube_vis_results(*paths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": truth_file()["videos"] * 2}, "videos has id 7 twice"),
        ({"videos": [{"id": 7, "length": 3}]}, "annotation 1 has 2 frames, its video 3"),
        ({"videos": [{"id": 8}]}, "annotation 1: there is no video 7"),
        ({"categories": [{"id": 4}]}, "annotation 1: there is no category 3"),
    ],
)
def test_truths_that_are_not_in_order_are_refused_by_id(changes, message):
    with pytest.raises(ValueError, match=message):
        score_youtube_vis_results(truth_file(**changes), results_file())


def test_what_is_left_out_is_counted_and_listed():
    results = results_file(category_id=9) * 2 + results_file(segmentations=[text(LEFT)])
    with (
        pytest.warns(UserWarning, match="2 results of category 9"),
        pytest.warns(UserWarning, match="1 results of video 7 list fewer frames"),
    ):
        scores = score_youtube_vis_results(truth_file(), results)
    assert len(scores.notes) == 2
