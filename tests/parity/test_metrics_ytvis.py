"""YouTube-VIS AP against YTVOSeval: every case, every array, every overlap."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from omg_transformers.metrics.detection_matching import best_first
from omg_transformers.metrics.video_average_precision import (
    YoutubeVisFiles,
    group_tracks,
    score_youtube_vis_results,
)

TOLERANCE = 1e-9
CRASHES = {"IndexError": "an empty list of results scores 0", "AssertionError": "an unknown video is an error"}


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "ytvis"
    names = sorted(json.loads((folder / "index.json").read_text()))
    assert names == sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert len(names) >= 8
    return {name: (folder / name, json.loads((folder / name / "expected.json").read_text())) for name in names}


@pytest.fixture(scope="module")
def judged(cases):
    judged = {name: case for name, case in cases.items() if "error" not in case[1]}
    assert len(judged) + sum("error" in expected for _, expected in cases.values()) == len(cases)
    return judged


def score(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score_youtube_vis_results(folder / "gt.json", folder / "dt.json")


def assert_figures(values, wanted):
    values, wanted = list(values), list(wanted)
    assert len(values) == len(wanted)
    for value, expected in zip(values, wanted, strict=True):
        assert (math.isnan(value) and expected == -1) or abs(value - expected) <= TOLERANCE


def test_figures_and_arrays_of_every_case_equal_the_reference(judged):
    for folder, expected in judged.values():
        scores = score(folder)
        arrays = np.load(folder / "expected_arrays.npz")
        for name in ("precision", "recall"):
            np.testing.assert_allclose(getattr(scores, name), arrays[name], rtol=0, atol=TOLERANCE)
        assert_figures(scores.figures.values(), expected["stats"].values())
        columns = scores.per_class()
        assert list(columns) == ["ap", "ap50", "ap75", "ar100"]
        assert list(map(str, scores.category_ids)) == list(expected["per_class"])
        for row, wanted in zip(zip(*columns.values(), strict=True), expected["per_class"].values(), strict=True):
            assert_figures(row, wanted.values())


def test_overlaps_of_every_case_equal_the_reference(judged):
    compared = 0
    for folder, expected in judged.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            files = YoutubeVisFiles(folder / "gt.json", folder / "dt.json")
        ids = list(files.categories)
        ours = {
            f"{video}_{ids[group.label]}": group.ious
            for video in files.sizes
            for group in group_tracks(*files.tracks_of(video))
        }
        for name, wanted in expected["ious"].items():
            np.testing.assert_allclose(ours[name], np.reshape(wanted, ours[name].shape), rtol=0, atol=TOLERANCE)
            compared += 1
    assert compared == sum(len(expected["ious"]) for _, expected in judged.values()) > 0


def test_where_the_reference_crashes_there_is_a_value_or_a_clear_error(cases, judged):
    crashed = {name: case for name, case in cases.items() if name not in judged}
    assert crashed
    for name, (folder, expected) in crashed.items():
        assert expected["error"]["type"] in CRASHES, name
        if expected["error"]["type"] == "IndexError":
            assert score(folder).figures["ap"] == 0
        else:
            with pytest.raises(ValueError, match=r"dt\.json: result \d+ .*gt\.json has no video"):
                score(folder)


def test_short_tracks_are_compared_on_their_frames_and_noted(cases):
    folder, _ = cases["short_pred"]
    with pytest.warns(UserWarning, match="list fewer frames"):
        assert score_youtube_vis_results(folder / "gt.json", folder / "dt.json").notes


def test_best_first_keeps_file_order_among_equals():
    assert best_first(np.array([0.5, 0.9, 0.5, 0.9])).tolist() == [1, 3, 0, 2]
