"""The recorded videos written as VIPSeg's files: read back, they score like VIPSeg's script and deeplab2."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from omg_transformers.metrics.video_panoptic import join_ids
from omg_transformers.metrics.vipseg_files import score_vipseg_files


@pytest.fixture(scope="module")
def cases(golden_metrics):
    folder = golden_metrics / "vps"
    names = list(json.loads((folder / "index.json").read_text()))
    assert len(names) >= 15
    return {name: json.loads((folder / name / "expected.json").read_text()) for name in names}


def write_side(root, arrays, expected, side):
    """One JSON file and its PNGs; ids are numbered per video, since golden instance numbers may exceed 24 bits."""
    annotations = []
    for number in range(expected["n_videos"]):
        kinds = (arrays[f"v{number}_{side}_{kind}"] for kind in ("cat", "ins"))
        joined = join_ids(*kinds, num_classes=expected["num_classes"], void=expected["void"])
        values, small = np.unique(joined, return_inverse=True)
        small = small.reshape(joined.shape) + (values[0] != 0)
        labels = dict(zip(np.unique(small).tolist(), ((values - 1) % expected["num_classes"]).tolist(), strict=True))
        instances = dict(zip(labels, ((values - 1) // expected["num_classes"]).tolist(), strict=True))
        crowds = {tuple(map(int, crowd)) for crowd in arrays[f"v{number}_gt_crowd"]} if side == "gt" else set()
        folder = root / side / f"v{number}"
        folder.mkdir(parents=True)
        frames = []
        for frame, ids in enumerate(small):
            rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
            Image.fromarray(rgb).save(folder / f"{frame:05}.png")
            found = [identity for identity in np.unique(ids).tolist() if identity]
            segments = [
                {"id": i, "category_id": labels[i], "iscrowd": int((labels[i], instances[i]) in crowds)} for i in found
            ]
            frames.append({"file_name": f"{frame:05}.png", "segments_info": segments})
        annotations.append({"video_id": f"v{number}", "annotations": frames})
    is_thing = [label in expected["thing_classes"] for label in range(expected["num_classes"])]
    categories = [{"id": label, "name": str(label), "isthing": int(thing)} for label, thing in enumerate(is_thing)]
    (root / f"{side}.json").write_text(json.dumps({"annotations": annotations, "categories": categories}))
    return root / f"{side}.json", root / side


def test_files_score_like_the_references(cases, golden_metrics, tmp_path):
    compared = compared_stq = 0
    for name, expected in cases.items():
        with np.load(golden_metrics / "vps" / name / "data.npz") as arrays:
            sides = [write_side(tmp_path / name, arrays, expected, side) for side in ("gt", "pred")]
            zero_things = any(
                (arrays[key.replace("cat", "ins")][np.isin(arrays[key], expected["thing_classes"])] == 0).any()
                for key in arrays.files
                if key.endswith("gt_cat")
            )
            has_crowd = any(arrays[key].size for key in arrays.files if key.endswith("gt_crowd"))
        (truth, gt_folder), (prediction, pred_folder) = sides
        score = score_vipseg_files(truth, prediction, gt_folder, pred_folder, windows=expected["windows"])
        figures = score.compute()
        for window in expected["windows"]:
            wanted = expected["vpq_vipseg_official"][f"nframes_{window}"]["All"]
            if "error" not in wanted:
                assert figures[f"vpq_{window}"] == pytest.approx(wanted["pq"], abs=1e-9), (name, window)
                compared += 1
        wanted = expected["stq_deeplab2"]
        # Things numbered 0 are crowds to deeplab2 alone; its weights are no part of these files.
        if not zero_things and not has_crowd and "error" not in wanted and name != "weights":
            assert figures["stq"] == pytest.approx(wanted["STQ"], abs=1e-6), name
            compared_stq += 1
    assert compared >= 4 * len(cases)
    assert compared_stq >= 10
