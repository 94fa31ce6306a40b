"""J&F on sequences small enough to work out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.video_object import VideoObjectQuality, statistics
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, Segment, Segments

SIZE = (24, 32)


def square(top, left, side=8):
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def id_maps(*frames):
    """Frames given as {id: mask}."""
    maps = np.zeros((len(frames), *SIZE), dtype=np.uint8)
    for frame, objects in zip(maps, frames, strict=True):
        for number, mask in objects.items():
            frame[mask] = number
    return maps


A, B = square(2, 3), square(12, 20)
TRUTH = id_maps(*[{1: A, 2: B}] * 4)


def count(prediction, truth=TRUTH, task="semi-supervised", **options):
    metric = VideoObjectQuality(task, **options)
    metric.update_maps(prediction, truth, name="dog")
    return metric


def test_a_perfect_prediction_scores_one_and_does_not_decay():
    for task in ("semi-supervised", "unsupervised"):
        figures = count(TRUTH, task=task).compute()
        assert next(iter(figures)) == "j_and_f"
        assert {figures[name] for name in ("j_and_f", "j_mean", "j_recall", "f_mean", "f_recall")} == {1.0}
        assert figures["j_decay"] == figures["f_decay"] == 0.0


def test_j_is_the_overlap_of_each_frame():
    half = square(2, 3)
    half[:, 7:] = False
    metric = count(id_maps({}, {1: half, 2: B}, {1: A, 2: B}, {}))
    first, second = metric.objects
    assert first.j.tolist() == [0.5, 1.0]
    assert second.j.tolist() == second.f.tolist() == [1.0, 1.0]
    assert metric.compute()["j_mean"] == (0.75 + 1) / 2


def test_first_and_last_frame_are_judged_without_help_only():
    prediction = id_maps({}, {1: A, 2: B}, {1: A, 2: B}, {})
    assert count(prediction).compute()["j_mean"] == 1.0
    assert count(prediction, task="unsupervised").compute()["j_mean"] == 0.5


def test_proposals_are_assigned_to_the_objects_they_fit_best():
    metric = count(id_maps(*[{4: A, 7: B, 1: square(0, 16, 3)}] * 4), task="unsupervised")
    assert [(row["object"], row["proposal"], row["j_mean"]) for row in metric.per_object()] == [
        (1, 4, 1.0),
        (2, 7, 1.0),
    ]


def test_an_object_without_a_proposal_is_marked():
    metric = count(id_maps(*[{1: B}] * 4), task="unsupervised")
    assert [(row["object"], row["proposal"], row["j_mean"]) for row in metric.per_object()] == [
        (1, 0, 0.0),
        (2, 1, 1.0),
    ]


def test_void_does_not_count_without_help_and_is_background_with_it():
    strip = np.zeros(SIZE, bool)
    strip[:, 11:16] = True
    truth = id_maps(*[{1: A, 255: strip}] * 4)
    prediction = id_maps(*[{1: A | strip}] * 4)
    assert count(prediction, truth, "unsupervised").compute()["j_mean"] == 1.0
    assert count(prediction, truth).compute()["j_mean"] == A.sum() / (A | strip).sum()


def test_an_object_that_is_gone_and_not_predicted_is_right():
    truth = id_maps({1: A, 2: B}, {1: A}, {1: A}, {1: A})
    assert count(truth, truth).compute()["j_and_f"] == 1.0


def test_an_id_that_is_left_out_is_an_empty_object():
    truth = id_maps(*[{1: A, 3: B}] * 4)
    rows = count(truth, truth).per_object()
    assert [row["object"] for row in rows] == [1, 2, 3]
    assert [row["j_mean"] for row in count(id_maps(*[{1: A, 2: B}] * 4), truth).per_object()] == [1.0, 0.0, 0.0]


def test_late_objects_are_judged_when_asked_for():
    truth = id_maps({1: A}, {1: A}, {1: A, 2: B}, {1: A, 2: B})
    with pytest.raises(ValueError, match=r"dog: .* the ids 2 \(first in frame 2\).* set with_late_objects"):
        count(truth, truth)
    assert len(count(truth, truth, with_late_objects=True).objects) == 2
    assert len(count(truth, truth, "unsupervised").objects) == 1


def test_recall_is_the_share_above_one_half_strictly():
    assert statistics(np.array([0.5, 0.6, 0.4, 1.0]))[:2] == (0.625, 0.5)


@pytest.mark.parametrize("length", [1, 2, 5, 40, 256, 257, 258, 300, 1000])
def test_decay_is_the_first_quarter_minus_the_last_for_any_length(length):
    values = np.linspace(1, 0, length)
    quarter = round((length - 1) / 4 + 1e-10)
    first, last = values[: quarter + 1], values[round(3 * (length - 1) / 4 + 1e-10) :]
    assert statistics(values)[2] == pytest.approx(first.mean() - last.mean())


def segments_of(maps, ids, *, as_map):
    numbers = torch.tensor(ids)
    stacked = [encode_masks(torch.from_numpy(maps == number)) for number in ids]
    return Segments(
        SIZE,
        numbers,
        torch.full((len(ids),), -1),
        torch.ones(len(ids)),
        id_map=torch.from_numpy(maps).int() if as_map else None,
        rles=None if as_map else tuple(stacked),
    )


@pytest.mark.parametrize("task", ["semi-supervised", "unsupervised"])
@pytest.mark.parametrize("as_map", [True, False])
def test_segments_and_annotations_count_like_maps(task, as_map):
    strip = np.zeros(SIZE, bool)
    strip[:, 11:16] = True
    truth = id_maps(*[{1: A, 2: B, 255: strip}] * 4)
    prediction = id_maps(*[{1: A | strip, 2: square(11, 19)}] * 4)
    masks = [encode_masks(torch.from_numpy(truth == number)) for number in (1, 2, 255)]
    crowd = Segment(0, masks[2], is_crowd=True)
    annotation = Annotation(SIZE, (True,), (Segment(0, masks[0]), crowd, Segment(0, masks[1])), (None,) * 4)
    metric = VideoObjectQuality(task)
    metric.update(segments_of(prediction, [1, 2], as_map=as_map), annotation, key="dog")
    assert metric.per_object() == count(prediction, truth, task).per_object()


def test_no_predictions_at_all_are_empty_ones():
    annotation = Annotation(SIZE, (True,), (Segment(0, encode_masks(torch.from_numpy(TRUTH == 1))),), (None,) * 4)
    nothing = Segments(
        SIZE, torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long), torch.zeros(0), rles=()
    )
    for task in ("semi-supervised", "unsupervised"):
        metric = VideoObjectQuality(task)
        metric.update(nothing, annotation)
        assert metric.compute()["j_and_f"] == 0.0


def test_segments_of_another_clip_are_refused():
    annotation = Annotation(SIZE, (True,), (Segment(0, encode_masks(torch.from_numpy(TRUTH == 1))),), (None,) * 4)
    with pytest.raises(ValueError, match=r"dog: 3 frames of \(24, 32\) are predicted, the annotation has 4"):
        VideoObjectQuality().update(segments_of(TRUTH[:3], [1], as_map=False), annotation, key="dog")
    with pytest.raises(ValueError, match="dog: the prediction holds 2 predictions, but the truth has the ids 1 to 1"):
        VideoObjectQuality().update(segments_of(TRUTH, [1, 2], as_map=False), annotation, key="dog")


def test_merged_parts_equal_the_whole():
    shifted = id_maps(*[{1: square(3, 4), 2: B}] * 4)
    whole, part, rest = (VideoObjectQuality() for _ in range(3))
    for metric, name in ((whole, "a"), (part, "a"), (whole, "b"), (rest, "b")):
        metric.update_maps(shifted, TRUTH, name=name)
    part.merge(rest)
    assert part.compute() == whole.compute()
    assert part.per_object() == whole.per_object()
    with pytest.raises(ValueError, match="sequence b has been counted already"):
        part.merge(rest)
    with pytest.raises(ValueError, match="cannot be averaged"):
        part.merge(VideoObjectQuality("unsupervised"))


def test_a_sequence_counts_once():
    metric = count(TRUTH)
    with pytest.raises(ValueError, match="sequence dog has been counted already"):
        metric.update_maps(TRUTH, TRUTH, name="dog")


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (TRUTH[:, :-1], TRUTH, r"dog: prediction has shape \(4, 23, 32\), truth \(4, 24, 32\)"),
        (TRUTH[:3], TRUTH, r"dog: prediction has shape \(3, 24, 32\)"),
        (TRUTH[:2], TRUTH[:2], "dog has 2 frames: .* needs at least 3"),
        (TRUTH[0], TRUTH[0], r"dog has shape \(24, 32\): expected id maps"),
        (TRUTH, np.zeros_like(TRUTH), "dog has no object in its first frame"),
        (np.full_like(TRUTH, 255), TRUTH, r"the ids 255 \(first in frame 1\), but the truth has the ids 1 to 2"),
        (-TRUTH.astype(int), TRUTH, r"the ids -2, -1 \(first in frame 1\)"),
    ],
)
def test_bad_input_is_refused_and_named(prediction, truth, message):
    metric = VideoObjectQuality()
    with pytest.raises(ValueError, match=message):
        metric.update_maps(prediction, truth, name="dog")
    assert metric.objects == []


def test_too_many_proposals_are_refused():
    with pytest.raises(ValueError, match=r"ids 21 \(first in clip/7\), but at most 20 proposals"):
        VideoObjectQuality("unsupervised").update_maps(
            id_maps({1: A}, {21: A}), TRUTH[:2], frame_names=["clip/6", "clip/7"]
        )


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="task is 'interactive': expected one of 'semi-supervised'"):
        VideoObjectQuality("interactive")
    with pytest.raises(ValueError, match="bound_th is -1"):
        VideoObjectQuality(bound_th=-1)


def test_nothing_counted_is_nan():
    assert all(math.isnan(value) for value in VideoObjectQuality().compute().values())


# -- frames that nobody annotated


def with_unannotated(truth, places, ids=(1, 2)):
    """The annotation of a clip of whose frames some are void as a whole."""
    known = truth.copy()
    known[list(places)] = 0
    void = np.zeros_like(truth, bool)
    void[list(places)] = True
    segments = tuple(Segment(-1, encode_masks(torch.from_numpy(known == number))) for number in ids)
    return Annotation(SIZE, (True,), segments, encode_masks(torch.from_numpy(void)))


@pytest.mark.parametrize("task", ["semi-supervised", "unsupervised"])
def test_frames_that_nobody_annotated_are_not_judged(task):
    truth = id_maps(*[{1: A, 2: B}] * 7)
    prediction = id_maps(*[{1: square(2 + number, 3), 2: B} for number in range(7)])
    annotated = [0, 2, 3, 6]
    metric = VideoObjectQuality(task)
    annotation = with_unannotated(truth, {1, 4, 5})
    metric.update(segments_of(prediction, [1, 2], as_map=False), annotation, key="dog")
    # As the reference, which sees only the frames that have a file.
    assert metric.per_object() == count(prediction[annotated], truth[annotated], task).per_object()


def test_a_clip_with_too_few_annotated_frames_is_refused():
    truth = id_maps(*[{1: A, 2: B}] * 6)
    with pytest.raises(ValueError, match=r"dog has 2 annotated frames: .* needs at least 3"):
        VideoObjectQuality().update(
            segments_of(truth, [1, 2], as_map=False), with_unannotated(truth, {1, 2, 3, 4}), key="dog"
        )
