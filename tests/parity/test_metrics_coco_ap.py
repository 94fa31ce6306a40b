"""COCO AP of masks, boxes and boundaries against pycocotools and the boundary-iou program, every case, every array."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from omg_transformers.metrics.average_precision import KINDS
from omg_transformers.metrics.coco_backends import FAST_BACKENDS, difference_of, installed_backends
from omg_transformers.metrics.coco_results import CocoFiles, score_coco_results

TOLERANCE = 1e-9
CRASHES = {"IndexError": "an empty list of results scores 0", "AssertionError": "an unknown image is an error"}


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "coco_ap"
    names = sorted(json.loads((folder / "index.json").read_text()))
    assert names == sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert len(names) >= 10
    return {name: (folder / name, json.loads((folder / name / "expected.json").read_text())) for name in names}


def score(folder, kind, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score_coco_results(folder / "gt.json", folder / "dt.json", kind, **options)


def assert_equal(scores, folder, expected):
    arrays = np.load(folder / "expected_arrays.npz")
    for name in ("precision", "recall"):
        np.testing.assert_allclose(getattr(scores, name), arrays[f"{scores.kind}_{name}"], rtol=0, atol=TOLERANCE)
    assert_figures(scores.figures.values(), expected["stats"].values())
    columns = scores.per_class()
    assert list(columns) == ["ap", "ap50", "ap75", "ar100"]
    assert list(map(str, scores.category_ids)) == list(expected["per_class"])
    for row, wanted in zip(zip(*columns.values(), strict=True), expected["per_class"].values(), strict=True):
        assert_figures(row, wanted.values())


def assert_figures(values, wanted):
    values, wanted = list(values), list(wanted)
    assert len(values) == len(wanted)
    for value, expected in zip(values, wanted, strict=True):
        assert (math.isnan(value) and expected == -1) or abs(value - expected) <= TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_equals_the_reference(cases, kind):
    compared = 0
    for folder, expected in cases.values():
        if "error" in expected[kind]:
            continue
        assert expected["boundary_dilation_ratio"] == 0.02
        assert_equal(score(folder, kind, backend="pycocotools"), folder, expected[kind])
        compared += 1
    assert compared == len(cases) - sum("error" in expected[kind] for _, expected in cases.values()) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_reference_crashes_there_is_a_value_or_a_clear_error(cases, kind):
    crashed = {name: case for name, case in cases.items() if "error" in case[1][kind]}
    assert crashed
    for name, (folder, expected) in crashed.items():
        assert expected[kind]["error"]["type"] in CRASHES, name
        if expected[kind]["error"]["type"] == "IndexError":
            figures = score(folder, kind).figures
            assert all(value == 0 or math.isnan(value) for value in figures.values())
            assert figures["ap"] == 0
        else:
            unknown = _unknown_image(folder)
            with pytest.raises(ValueError, match=rf"dt\.json: result \d+ .*no image {unknown}"):
                score(folder, kind)


def _unknown_image(folder):
    known = {row["id"] for row in json.loads((folder / "gt.json").read_text())["images"]}
    return next(row["image_id"] for row in json.loads((folder / "dt.json").read_text()) if row["image_id"] not in known)


def test_the_unknown_category_is_counted_and_listed(cases):
    folder, _ = cases["unknown_category"]
    truth, results = (json.loads((folder / f"{name}.json").read_text()) for name in ("gt", "dt"))
    known = {row["id"] for row in truth["categories"]}
    foreign = [row["category_id"] for row in results if row["category_id"] not in known]
    with pytest.warns(UserWarning, match=f"{len(foreign)} results of category {foreign[0]}"):
        scores = score_coco_results(folder / "gt.json", folder / "dt.json")
    assert len(scores.notes) == 1


@pytest.mark.parametrize("backend", FAST_BACKENDS)
@pytest.mark.parametrize("kind", KINDS)
def test_fast_backends_equal_the_reference_or_are_refused(cases, kind, backend):
    if backend not in installed_backends():
        pytest.skip(f"{backend} is not installed: pip install {backend.replace('_', '-')}")
    outcomes = {"equal": 0, "refused": 0}
    for folder, expected in cases.values():
        if "error" in expected[kind]:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            files = CocoFiles(folder / "gt.json", folder / "dt.json", kind)
        flags = {name: getattr(files, name) for name in ("has_void_id", "has_ignored")}
        if difference_of(backend, kind, **flags, has_results=bool(files.results)) is None:
            assert_equal(score(folder, kind, backend=backend), folder, expected[kind])
            outcomes["equal"] += 1
        else:
            with pytest.raises(ValueError, match=f"{backend}' is refused"):
                score(folder, kind, backend=backend)
            outcomes["refused"] += 1
    assert sum(outcomes.values()) == len(cases) - sum("error" in expected[kind] for _, expected in cases.values())
    assert outcomes["equal"] or (backend, kind) == ("hotcoco", "boundary")


def test_auto_gives_the_same_numbers_whatever_is_installed(cases):
    folder, expected = cases["mix"]
    for kind in KINDS:
        assert_equal(score(folder, kind, backend="auto"), folder, expected[kind])
