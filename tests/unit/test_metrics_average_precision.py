"""Mask average precision: hand-counted scenes, and COCOeval on files."""

from __future__ import annotations

import json
import math

import pytest
import torch

from omg_transformers.metrics.average_precision import NAMES, RECALL_NAMES, MaskAveragePrecision, coco_figures
from omg_transformers.ops.masks import encode_mask, rle_area
from omg_transformers.structures import Annotation, Segment, Segments

SIZE = (4, 8)


def rectangle(rows, columns):
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[slice(*rows), slice(*columns)] = True
    return encode_mask(mask)


LEFT, RIGHT = rectangle((0, 4), (0, 4)), rectangle((0, 4), (4, 8))


def result_of(*rows):
    """(mask, label, score) of each instance."""
    return Segments(
        SIZE,
        torch.arange(1, len(rows) + 1),
        torch.tensor([row[1] for row in rows], dtype=torch.long),
        torch.tensor([row[2] for row in rows], dtype=torch.float32),
        rles=tuple((row[0],) for row in rows),
    )


def annotation_of(*segments):
    return Annotation(SIZE, (True, True, False), tuple(segments))


def test_one_right_and_one_better_scored_wrong_result_halve_the_precision():
    metric = MaskAveragePrecision(3)
    metric.update(result_of((RIGHT, 0, 0.9), (LEFT, 0, 0.8)), annotation_of(Segment(0, (LEFT,))))
    figures = metric.compute()
    assert next(iter(figures)) == "ap"
    assert figures["ap50"] == pytest.approx(0.5)
    assert figures["ar100"] == pytest.approx(1.0)


def test_a_mask_of_iou_three_quarters_is_right_up_to_that_threshold():
    metric = MaskAveragePrecision(3)
    metric.update(result_of((rectangle((0, 3), (0, 4)), 0, 0.9)), annotation_of(Segment(0, (LEFT,))))
    figures = metric.compute()
    assert figures["ap75"] == pytest.approx(1.0)
    assert figures["ap"] == pytest.approx(0.6)  # 0.50, 0.55 ... 0.75 of ten thresholds


def test_results_on_a_crowd_are_not_wrong():
    truth = annotation_of(Segment(0, (LEFT,)), Segment(0, (RIGHT,), is_crowd=True))
    metric = MaskAveragePrecision(3)
    metric.update(result_of((RIGHT, 0, 0.9), (LEFT, 0, 0.8)), truth)
    assert metric.compute()["ap"] == pytest.approx(1.0)


def test_stuff_and_nameless_segments_are_not_judged():
    truth = annotation_of(Segment(0, (LEFT,)), Segment(2, (RIGHT,)), Segment(-1, (RIGHT,)))
    metric = MaskAveragePrecision(3)
    metric.update(result_of((RIGHT, 2, 0.9), (RIGHT, -1, 0.9), (LEFT, 0, 0.8)), truth)
    assert metric.compute()["ap"] == pytest.approx(1.0)


def test_a_clip_is_one_mask():
    truth = Annotation(SIZE, (True,), (Segment(0, (LEFT, None, LEFT)),), (None,) * 3)
    result = Segments(SIZE, torch.tensor([1]), torch.tensor([0]), torch.ones(1), rles=((LEFT, LEFT, LEFT),))
    metric = MaskAveragePrecision(1)
    metric.update(result, truth)
    assert metric.compute()["ap"] == pytest.approx(0.4)  # IoU 2/3: right at 0.50, 0.55, 0.60, 0.65


def test_a_picture_without_things_has_no_average_precision():
    metric = MaskAveragePrecision(3)
    metric.update(result_of((LEFT, 0, 0.9)), annotation_of())
    assert all(math.isnan(value) for value in metric.compute().values())
    assert list(metric.compute()) == [*NAMES, *RECALL_NAMES]


def test_counting_prints_nothing(capsys):
    metric = MaskAveragePrecision(3)
    metric.update(result_of((LEFT, 0, 0.9)), annotation_of(Segment(0, (LEFT,))))
    metric.compute()
    assert capsys.readouterr().out == ""


def test_maps_instead_of_masks_are_refused():
    ids = torch.zeros((1, *SIZE), dtype=torch.int32)
    result = Segments(SIZE, torch.zeros(0).long(), torch.zeros(0).long(), torch.zeros(0), id_map=ids)
    with pytest.raises(ValueError, match="no rles"):
        MaskAveragePrecision(3).update(result, annotation_of())


@pytest.mark.parametrize("case", ["mix", "mix_no_bbox", "over_100_dets", "perfect_one", "mostly_crowd", "large_areas"])
def test_figures_equal_cocoeval_on_files(golden_metrics, case):
    folder = golden_metrics / "coco_ap" / case
    truth, results = (json.loads((folder / f"{name}.json").read_text()) for name in ("gt", "dt"))
    classes = {category["id"]: index for index, category in enumerate(truth["categories"])}
    pictures = [picture["id"] for picture in truth["images"]]

    def grouped(records, key):
        groups = {picture: [] for picture in pictures}
        for record in records:
            groups[record["image_id"]].append(
                {
                    "category_id": classes[record["category_id"]],
                    "segmentation": record["segmentation"],
                    "area": area_of(record),
                    key: record[key],
                }
            )
        return list(groups.values())

    figures = coco_figures(grouped(truth["annotations"], "iscrowd"), grouped(results, "score"), len(classes))
    expected = json.loads((folder / "expected.json").read_text())["segm"]["stats"]
    assert len(expected) == len(figures) == 12
    for value, wanted in zip(figures.values(), expected.values(), strict=True):
        assert (math.isnan(value) and wanted == -1) or value == pytest.approx(wanted, abs=1e-9)


def area_of(record):
    """As pycocotools takes it: given, else of the box, else of the mask."""
    if "area" in record:
        return record["area"]
    return record["bbox"][2] * record["bbox"][3] if "bbox" in record else rle_area(record["segmentation"])
