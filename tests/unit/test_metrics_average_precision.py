"""COCO average precision: hand-counted scenes, random ones against COCOeval, and files that are not in order."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from omg_transformers.metrics.average_precision import NAMES, RECALL_NAMES, MaskAveragePrecision, coco_figures
from omg_transformers.metrics.coco_backends import choose_backend, installed_backends
from omg_transformers.metrics.coco_results import score_coco_results
from omg_transformers.metrics.run_lengths import faults_of_counts
from omg_transformers.ops.masks import encode_mask
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


def test_boxes_are_judged_by_their_corners():
    corner = rectangle((0, 4), (0, 1))
    corner_and_dot = encode_mask(torch.eye(4, 8).bool())
    metric = MaskAveragePrecision(3, kind="bbox")
    metric.update(result_of((corner_and_dot, 0, 0.9)), annotation_of(Segment(0, (LEFT,))))
    assert metric.compute()["ap"] == pytest.approx(1.0)
    metric = MaskAveragePrecision(3, kind="bbox")
    metric.update(result_of((corner, 0, 0.9)), annotation_of(Segment(0, (LEFT,))))
    assert metric.compute()["ap"] == 0


def test_boundaries_are_stricter_than_masks():
    truth, guess = np.zeros((2, 100, 100), dtype=bool)
    truth[10:90, 10:90] = guess[12:90, 10:90] = True
    records = [
        {"category_id": 0, "segmentation": encode_mask(mask), "area": 1000, "iscrowd": 0, "score": 1.0}
        for mask in (truth, guess)
    ]
    masks, rims = (coco_figures([records[:1]], [records[1:]], 1, kind=kind) for kind in ("segm", "boundary"))
    assert masks["ap75"] == pytest.approx(1.0)
    assert rims["ap75"] == 0


def test_boundaries_of_a_clip_are_refused():
    truth = Annotation(SIZE, (True,), (Segment(0, (LEFT, LEFT)),), (None,) * 2)
    result = Segments(SIZE, torch.tensor([1]), torch.tensor([0]), torch.ones(1), rles=((LEFT, LEFT),))
    with pytest.raises(ValueError, match="no boundary AP"):
        MaskAveragePrecision(1, kind="boundary").update(result, truth)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (((RIGHT, 0, float("nan")),), "scores holds nan"),
        (((RIGHT, 3, 0.5),), "label 3"),
        ((({"size": [4, 7], "counts": RIGHT["counts"]}, 0, 0.5),), r"size \(4, 7\)"),
        ((({"size": [4, 8], "counts": RIGHT["counts"][:-1]}, 0, 0.5),), r"rles\[0\], frame 0: counts"),
    ],
)
def test_results_that_cannot_be_judged_are_refused_by_name(result, message):
    with pytest.raises(ValueError, match=message):
        MaskAveragePrecision(3).update(result_of(*result), annotation_of(Segment(0, (LEFT,))))


def test_a_clip_of_other_length_is_refused():
    result = Segments(SIZE, torch.tensor([1]), torch.tensor([0]), torch.ones(1), rles=((LEFT, LEFT),))
    with pytest.raises(ValueError, match="has 2 frames, the annotation 1"):
        MaskAveragePrecision(3).update(result, annotation_of(Segment(0, (LEFT,))))


def test_with_keys_equal_scores_keep_the_order_of_samples_on_any_number_of_processes():
    samples = [
        (result_of((RIGHT, 0, 0.5)), annotation_of(Segment(0, (LEFT if index % 3 else RIGHT,)))) for index in range(7)
    ]
    one = MaskAveragePrecision(3)
    parts = [MaskAveragePrecision(3) for _ in range(3)]
    for index, sample in enumerate(samples):
        one.update(*sample, key=index)
        parts[index % 3].update(*sample, key=index)
    parts[2].merge(parts[0])
    parts[2].merge(parts[1])
    assert parts[2].compute() == pytest.approx(one.compute(), abs=0, nan_ok=True)
    assert len(parts[2].table) == 7
    nameless = MaskAveragePrecision(3)
    for index in (2, 5, 0, 3, 6, 1, 4):
        nameless.update(*samples[index])
    assert nameless.compute()["ap"] != one.compute()["ap"]


def test_a_sample_counts_once():
    metric, other = MaskAveragePrecision(3), MaskAveragePrecision(3)
    for part in (metric, other):
        part.update(result_of((LEFT, 0, 0.5)), annotation_of(), key="a")
    with pytest.raises(ValueError, match="'a' was scored before"):
        metric.update(result_of((LEFT, 0, 0.5)), annotation_of(), key="a")
    with pytest.raises(ValueError, match="in both metrics, for instance 'a'"):
        metric.merge(other)


def test_the_table_has_a_row_per_class():
    metric = MaskAveragePrecision(3)
    metric.update(result_of((LEFT, 0, 0.9)), annotation_of(Segment(0, (LEFT,)), Segment(1, (RIGHT,))))
    table = metric.per_class()
    assert table["ap"][:2] == pytest.approx([1, 0])
    assert np.isnan(table["ap"][2])
    assert list(table) == ["ap", "ap50", "ap75", "ar100"]


def test_the_state_of_100_results_is_below_2_kilobytes():
    metric = MaskAveragePrecision(3)
    result = result_of(*((LEFT, 0, 0.001 * index) for index in range(100)))
    annotation = annotation_of(*(Segment(0, (RIGHT,)) for _ in range(25)))
    metric.update(result, annotation)
    before = metric.table.num_bytes
    for _ in range(10):
        metric.update(result, annotation)
    row = metric.table.rows[0]
    assert (metric.table.num_bytes - before) / 10 + sys.getsizeof(row[:0]) < 2048


def random_scene(seed):
    """Truth and results of 4 pictures with ties, crowds, empty masks, copies and two classes."""
    random = np.random.default_rng(seed)

    def mask(spread):
        y, x, height, width = random.integers(0, 40, 2).tolist() + random.integers(0, spread, 2).tolist()
        picture = np.zeros((64, 64), dtype=bool)
        picture[y : y + height, x : x + width] = True
        return picture

    truths, results = [], []
    for picture in range(1, 5):
        for _ in range(random.integers(0, 7)):
            base = mask(50)
            truths.append((picture, int(random.integers(2)), base, bool(random.random() < 0.2)))
            for _ in range(random.integers(0, 4)):
                moved = np.roll(base, random.integers(-3, 4, 2), (0, 1))
                results.append((picture, int(random.integers(2)), moved, round(float(random.random()), 1)))
        results.append((picture, 0, mask(2), 0.5))
    return truths, results


def test_random_scenes_equal_cocoeval_with_every_installed_backend():
    for seed in range(6):
        truths, results = random_scene(seed)
        truth = {
            "images": [{"id": number, "height": 64, "width": 64} for number in range(1, 5)],
            "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
            "annotations": [
                {"id": number, "image_id": picture, "category_id": label, "iscrowd": int(crowd)} | shape_of(mask)
                for number, (picture, label, mask, crowd) in enumerate(truths, 1)
            ],
        }
        found = [
            {"image_id": picture, "category_id": label, "score": score, "segmentation": text_rle(mask)}
            for picture, label, mask, score in results
        ]
        for kind in ("segm", "bbox"):
            precision, recall = by_cocoeval(json.loads(json.dumps(truth)), json.loads(json.dumps(found)), kind)
            for backend in installed_backends():
                ours = score_coco_results(truth, found, kind, backend=backend)
                np.testing.assert_allclose(ours.precision, precision, rtol=0, atol=1e-12)
                np.testing.assert_allclose(ours.recall, recall, rtol=0, atol=1e-12)


def text_rle(mask):
    rle = encode_mask(mask)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def shape_of(mask):
    rows, columns = np.nonzero(mask)
    box = [0, 0, 0, 0]
    if len(rows):
        box = [int(side) for side in (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)]
    return {"segmentation": text_rle(mask), "area": int(mask.sum()), "bbox": box}


def by_cocoeval(truth, results, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        data = COCO()
        data.dataset = truth
        data.createIndex()
        evaluation = COCOeval(data, data.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def truth_file(**changes):
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "iscrowd": 0} | shape_of(np.ones((4, 8), dtype=bool))
    return {
        "images": [{"id": 7, "height": 4, "width": 8}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [annotation],
    } | changes


def results_file(**changes):
    return [{"image_id": 7, "category_id": 3, "score": 0.5, "segmentation": text_rle(np.ones((4, 8), bool))} | changes]


GOOD_RLE = text_rle(np.eye(4, 8, dtype=bool))


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (results_file(image_id=8), r"r\.json: result 0 \(image 8, category 3\): t\.json has no image 8"),
        (results_file(score=float("nan")), r"r\.json: result 0 .*score is nan"),
        (results_file(score=None), "score is None"),
        (results_file(segmentation=GOOD_RLE | {"counts": GOOD_RLE["counts"][:-2]}), r"result 0 .*counts"),
        (results_file(segmentation={"size": [4, 8], "counts": [5, 5]}), "covers 10 of 32 pixels"),
        (results_file(segmentation=None), "has no segmentation"),
        (results_file(segmentation=[[1, 2]]), "at least three points"),
        (results_file(bbox=[0, 0, "a", 1]), "bbox is"),
        (results_file() + results_file(bbox=[0, 0, 8, 4]), "give all or none"),
        ({"annotations": []}, "holds an object with annotations: expected a JSON list of results"),
    ],
)
def test_results_that_do_not_fit_are_refused_by_file_and_id(tmp_path, results, message):
    paths = tmp_path / "t.json", tmp_path / "r.json"
    for path, content in zip(paths, (truth_file(), results), strict=True):
        path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        score_coco_results(*paths)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (truth_file(images=truth_file()["images"] * 2), "images has id 7 twice"),
        (truth_file(annotations=truth_file()["annotations"] * 2), "annotations has id 1 twice"),
        (truth_file(categories=[]), "no categories"),
        (truth_file(images=[{"id": 8}]), "annotation 1: there is no image 7"),
        (truth_file(annotations=[{**truth_file()["annotations"][0], "category_id": 4}]), "there is no category 4"),
        (truth_file(annotations=[{"id": 1, "image_id": 7, "category_id": 3}]), "annotation 1: area is None"),
        ([], "a list of objects 'images'"),
    ],
)
def test_truths_that_are_not_in_order_are_refused_by_id(truth, message):
    with pytest.raises(ValueError, match=message):
        score_coco_results(truth, results_file())


def test_a_missing_file_and_a_broken_one_are_named(tmp_path):
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(ValueError, match=r"truth is '.*none\.json': there is no such file"):
        score_coco_results(tmp_path / "none.json", [])
    with pytest.raises(ValueError, match=r"half\.json: not a JSON file"):
        score_coco_results(tmp_path / "half.json", [])


def test_masks_of_another_size_match_nothing_and_are_noted():
    with pytest.warns(UserWarning, match=r"result 0 .*size \(3, 8\), the picture \(4, 8\)"):
        scores = score_coco_results(truth_file(), results_file(segmentation=text_rle(np.ones((3, 8), bool))))
    assert scores.figures["ap"] == 0
    assert len(scores.notes) == 1


def test_no_results_and_no_truths_have_figures():
    assert score_coco_results(truth_file(), []).figures["ap"] == 0
    assert math.isnan(score_coco_results(truth_file(annotations=[]), results_file()).figures["ap"])


def test_more_results_than_pycocotools_counts_at_once_are_scored():
    assert score_coco_results(truth_file(), results_file() * 300).figures["ap50"] == pytest.approx(1.0)


def test_the_columns_of_a_file_follow_its_classes():
    scores = score_coco_results(truth_file(), results_file())
    assert scores.category_ids == (3,)
    assert scores.category_names == ("cat",)
    assert scores.per_class()["ap50"].tolist() == pytest.approx([1.0])


def test_backends_that_are_unknown_missing_or_different_are_refused():
    flags = {"has_void_id": True, "has_ignored": True, "has_results": True}
    assert choose_backend("auto", "segm", **flags) in installed_backends()
    with pytest.raises(ValueError, match="expected auto, pycocotools"):
        choose_backend("fast", "segm", **flags)
    for name in ("hotcoco", "faster_coco_eval"):
        error, message = (ValueError, "refused") if name in installed_backends() else (ImportError, "pip install")
        with pytest.raises(error, match=message):
            choose_backend(name, "boundary", **flags)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind is 'mask'"):
        MaskAveragePrecision(3, kind="mask")


def test_every_cut_of_run_lengths_is_found():
    random = np.random.default_rng(0)
    rles = [encode_mask(random.random((23, 31)) < share) for share in (0.0, 0.01, 0.3, 0.5, 1.0)]
    texts = [rle["counts"] for rle in rles]
    assert faults_of_counts(texts, [23 * 31] * len(texts)) == {}
    for text in texts:
        cuts = [text[:length] for length in range(len(text))]
        assert set(faults_of_counts(cuts, [23 * 31] * len(cuts))) == set(range(len(cuts)))
    assert faults_of_counts([b"~\x07"], [713]).keys() == {0}
