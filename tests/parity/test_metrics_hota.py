"""HOTA against figures recorded from TrackEval on the video panoptic cases."""

from __future__ import annotations

import json

import numpy as np
import pytest

from omg_transformers.metrics.hota import FIGURES, HOTA

ID_STEP = 2**20


@pytest.fixture(scope="module")
def cases(golden_metrics):
    pytest.importorskip("trackeval", reason="trackeval is not installed: pip install omg-transformers[hota]")
    expected = json.loads((golden_metrics / "hota_expected.json").read_text())["cases"]
    assert sorted(expected) == sorted(json.loads((golden_metrics / "vps" / "index.json").read_text()))
    return {name: (golden_metrics / "vps" / name, case) for name, case in expected.items()}


def track_ids(category, instance, is_thing):
    """One number per (class, instance) of a thing, 0 elsewhere."""
    return np.where(is_thing[category], category.astype(np.int64) * ID_STEP + instance + 1, 0)


def test_figures_of_every_case_equal_trackeval(cases):
    compared = 0
    for folder, expected in cases.values():
        settings = json.loads((folder / "expected.json").read_text())
        is_thing = np.zeros(max(settings["num_classes"], settings["void"] + 1), dtype=bool)
        is_thing[settings["thing_classes"]] = True
        arrays = np.load(folder / "data.npz")
        metric = HOTA()
        for name in expected["per_sequence"]:
            ids = [
                track_ids(arrays[f"{name}_{side}_cat"], arrays[f"{name}_{side}_ins"], is_thing)
                for side in ("pred", "gt")
            ]
            metric.update_maps(*ids, key=name)
        ours = {row["name"]: row for row in [*metric.per_video(), {"name": "combined", **metric.compute()}]}
        for name, wanted in {**expected["per_sequence"], "combined": expected["combined"]}.items():
            assert set(wanted) == set(FIGURES.values())
            for figure, source in FIGURES.items():
                assert ours[name][figure] == pytest.approx(wanted[source], abs=1e-9), (folder.name, name, figure)
            compared += 1
    assert compared == sum(len(expected["per_sequence"]) + 1 for _, expected in cases.values())
