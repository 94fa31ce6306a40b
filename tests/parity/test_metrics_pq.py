"""Panoptic quality and boundary panoptic quality against panopticapi and the boundary IoU API, from files."""

from __future__ import annotations

import json
import math

import pytest

from omg_transformers.metrics.panoptic_files import score_panoptic_files

KINDS = {"panopticapi": ("stat_per_class", None), "boundary_pq_0.02": ("boundary_stat_per_class", 0.02)}
ERRORS = {
    "err_png_not_json": r"PNG holds id \d+",
    "err_json_not_png": r"segments_info lists id \d+",
    "err_unknown_category": "unknown category_id",
    "err_missing_image": "no prediction for",
    "err_size_mismatch": "resize the prediction",
}


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "pq"
    names = list(json.loads((folder / "index.json").read_text()))
    found = {name: json.loads((folder / name / "expected.json").read_text()) for name in names}
    assert len(found) == len([path for path in folder.iterdir() if path.is_dir()])
    assert len(found) >= 18
    return folder, found


def score(folder, name, dilation_ratio):
    case = folder / name
    return score_panoptic_files(case / "gt.json", case / "pred.json", dilation_ratio=dilation_ratio)


@pytest.mark.parametrize("kind", KINDS)
def test_counts_and_qualities_equal_the_reference(cases, kind):
    folder, found = cases
    counts_name, dilation_ratio = KINDS[kind]
    scored = {name: expected for name, expected in found.items() if expected[counts_name] is not None}
    assert len(scored) == len(found) - len([name for name in found if name.startswith("err_")])
    for name, expected in scored.items():
        result = score(folder, name, dilation_ratio)
        for category, row in rows_of(result).items():
            wanted = expected[counts_name].get(str(category), {"tp": 0, "fp": 0, "fn": 0, "iou": 0.0})
            assert [row[key] for key in ("tp", "fp", "fn")] == [wanted[key] for key in ("tp", "fp", "fn")], name
            assert row["iou"] == pytest.approx(wanted["iou"], abs=1e-9), name
        if expected[kind] is not None:
            check_qualities(result, expected[kind], name)


def rows_of(result):
    """By category id, the row of each column."""
    columns = {key: column.tolist() for key, column in result.per_class().items()}
    return {
        category: {key: column[row] for key, column in columns.items()}
        for row, category in enumerate(result.category_ids)
    }


def check_qualities(result, wanted, name):
    figures, rows = result.compute(), rows_of(result)
    assert set(wanted["per_class"]) == set(map(str, rows))
    for category, row in rows.items():
        # The reference writes 0 for categories that occur nowhere, and leaves them out of its averages.
        found = {key: 0.0 if math.isnan(row[key]) else row[key] for key in ("pq", "sq", "rq")}
        assert found == pytest.approx(wanted["per_class"][str(category)], abs=1e-9), (name, category)
    occurring = sum(not math.isnan(row["pq"]) for row in rows.values())
    assert occurring == wanted["All"]["n"], name
    for group, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for key in ("pq", "sq", "rq"):
            assert figures[key + suffix] == pytest.approx(wanted[group][key], abs=1e-9), (name, group, key)


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_reference_divides_by_zero_the_average_is_nan(cases, kind):
    folder, found = cases
    _, dilation_ratio = KINDS[kind]
    key = {"panopticapi": "panopticapi_error", "boundary_pq_0.02": "boundary_pq_error"}[kind]
    divided = [name for name, expected in found.items() if (expected[key] or {}).get("type") == "ZeroDivisionError"]
    assert divided
    for name in divided:
        figures = score(folder, name, dilation_ratio).compute()
        assert math.isnan(figures["pq_stuff"]) or math.isnan(figures["pq_things"]), name


def test_files_that_contradict_each_other_are_refused_by_name_and_id(cases):
    folder, found = cases
    assert set(ERRORS) <= set(found)
    for name, message in ERRORS.items():
        with pytest.raises(ValueError, match=message) as caught:
            score(folder, name, None)
        assert str(folder / name) in str(caught.value)
