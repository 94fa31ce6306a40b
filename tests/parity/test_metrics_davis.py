"""DAVIS 2017's J and F, frame by frame, object by object and in total, to 1e-9."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from omg_transformers.metrics.contours import boundary_f, contour
from omg_transformers.metrics.prompt import mask_iou
from omg_transformers.metrics.video_object import TASKS, VideoObjectQuality

GLOBAL = {
    "J&F-Mean": "j_and_f",
    "J-Mean": "j_mean",
    "J-Recall": "j_recall",
    "J-Decay": "j_decay",
    "F-Mean": "f_mean",
    "F-Recall": "f_recall",
    "F-Decay": "f_decay",
}
FIGURES = ("J_mean", "J_recall", "J_decay", "F_mean", "F_recall", "F_decay")
# The reference keeps frame numbers in 8 bits.
MOST_FRAMES = 257
REFUSED = {
    "IndexError": "needs at least 3",
    "SystemExit": r"the prediction holds the ids \d+ \(first in frame \d+\), but the truth has the ids 1 to \d+",
    "AssertionError": r"prediction has shape \(.*\), truth \(.*\): they must be equal",
}


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "davis_jf"
    listed = json.loads((folder / "index.json").read_text())
    assert sorted(listed) == sorted(path.name for path in folder.iterdir() if path.is_dir())
    return {
        name: (json.loads((folder / name / "expected.json").read_text()), np.load(folder / name / "data.npz"))
        for name in listed
    }


def count(expected, data, task, **options):
    metric = VideoObjectQuality(task, **options)
    assert len(data.files) == 2 * len(expected["frames"]) > 0
    for sequence, num_frames in expected["frames"].items():
        assert len(data[f"{sequence}__gt"]) == num_frames
        metric.update_maps(data[f"{sequence}__pred"], data[f"{sequence}__gt"], name=sequence)
    return metric


def longest(expected, task):
    return max(expected["frames"].values()) - 2 * (task == "semi-supervised")


def take(objects, sequence, values):
    """The object with these J and F, from those that are left.

    The reference does not number the objects of an unsupervised sequence by their ids: it numbers the proposals that
    were assigned, empty ones included.
    """
    for quality in objects:
        same = quality.sequence == sequence and len(quality.j) == len(values["J_per_frame"])
        if same and close(quality.j, values["J_per_frame"]) and close(quality.f, values["F_per_frame"]):
            objects.remove(quality)
            return quality
    raise AssertionError(f"no object of {sequence} has J {values['J_per_frame']} and F {values['F_per_frame']}")


def close(found, wanted):
    return np.allclose(found, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_every_object_of_every_case_equals_the_reference(cases, task):
    replayed = 0
    for name, (expected, data) in cases.items():
        wanted = expected[task]
        if "error" in wanted:
            continue
        metric = count(expected, data, task)
        objects = list(metric.objects)
        assert len(objects) == len(wanted["per_object"]), name
        is_long = longest(expected, task) > MOST_FRAMES
        for key, values in wanted["per_object"].items():
            sequence, _, number = key.rpartition("_")
            quality = take(objects[:1] if task == "semi-supervised" else objects, sequence, values)
            if task == "semi-supervised":
                assert quality.number == int(number), (name, key)
                del objects[0]
            for figure in FIGURES:
                if not (is_long and figure.endswith("decay")):
                    assert quality.figures()[figure.lower()] == pytest.approx(values[figure], abs=1e-9), (name, key)
        figures = metric.compute()
        for theirs, ours in GLOBAL.items():
            if not (is_long and theirs.endswith("Decay")):
                assert figures[ours] == pytest.approx(wanted["global_"][theirs], abs=1e-9), (name, theirs)
        replayed += 1
    assert replayed == sum("error" not in expected[task] for expected, _ in cases.values()) > 0


@pytest.mark.parametrize("task", TASKS)
def test_where_the_reference_stops_the_error_names_the_sequence(cases, task):
    refused = 0
    for expected, data in cases.values():
        if "error" in expected[task]:
            reason = REFUSED[expected[task]["error"]["type"]]
            (sequence,) = expected["frames"]
            with pytest.raises(ValueError, match=rf"^{re.escape(sequence)}\b.*{reason}"):
                count(expected, data, task)
            refused += 1
    assert refused == sum("error" in expected[task] for expected, _ in cases.values()) > 0


@pytest.mark.parametrize("task", TASKS)
def test_decay_of_long_sequences_is_right_where_the_reference_has_no_number(cases, task):
    expected, data = cases["long_300"]
    assert np.isnan(expected[task]["global_"]["J-Decay"])
    (quality,) = count(expected, data, task).objects
    quarters = np.round(np.linspace(0, len(quality.j) - 1, 5) + 1e-10).astype(int)
    decay = quality.j[: quarters[1] + 1].mean() - quality.j[quarters[3] :].mean()
    assert quality.figures()["j_decay"] == pytest.approx(decay, abs=1e-12)


def test_late_objects_are_judged_on_demand(cases):
    expected, data = cases["late_object"]
    assert expected["semi-supervised"]["error"]["type"] == "SystemExit"
    (sequence,) = expected["frames"]
    metric = count(expected, data, "semi-supervised", with_late_objects=True)
    truth, prediction = data[f"{sequence}__gt"], data[f"{sequence}__pred"]
    assert len(metric.objects) == truth.max() > truth[0].max()
    last = metric.objects[-1]
    wanted = [
        mask_iou(prediction[frame] == last.number, truth[frame] == last.number) for frame in range(1, len(truth) - 1)
    ]
    assert last.j.tolist() == wanted


def test_contours_and_f_of_single_masks_equal_the_reference(golden_metrics):
    folder = golden_metrics / "boundary"
    pairs = json.loads((folder / "expected.json").read_text())["pairs"]
    data = np.load(folder / "data.npz")
    assert len(pairs) == sum(name.startswith("davis_bmap_a") for name in data.files) > 0
    for pair in pairs:
        first, second = (data[f"{letter}{pair['index']}"] for letter in "ab")
        assert np.array_equal(contour(first), data[f"davis_bmap_a{pair['index']}"])
        assert mask_iou(first, second) == pytest.approx(pair["J"], abs=1e-9)
        for bound_th, wanted in pair["F"].items():
            assert boundary_f(first, second, bound_th=float(bound_th)) == pytest.approx(wanted, abs=1e-9), pair
