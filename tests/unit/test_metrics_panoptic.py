"""Panoptic quality: hand-counted scenes and bad input."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from omg_transformers.metrics.panoptic import (
    PanopticCounts,
    PanopticQuality,
    count_overlaps,
)
from omg_transformers.metrics.panoptic_files import read_panoptic_png, score_panoptic_files
from omg_transformers.ops.masks import encode_mask, encode_masks
from omg_transformers.structures import Annotation, Segment, Segments


def count(prediction, truth, prediction_classes, truth_classes, crowd_ids=()):
    metric = PanopticQuality(2)
    metric.update_maps(np.array(prediction), np.array(truth), prediction_classes, truth_classes, crowd_ids=crowd_ids)
    return metric.counts


def as_lists(counts):
    return [counts.true_positives.tolist(), counts.false_positives.tolist(), counts.false_negatives.tolist()]


def test_an_overlap_above_one_half_is_a_match():
    counts = count([[5, 5, 5, 0]], [[7, 7, 7, 7]], {5: 1}, {7: 1})
    assert as_lists(counts) == [[0, 1], [0, 0], [0, 0]]
    assert counts.iou.tolist() == [0, 0.75]


def test_an_overlap_of_exactly_one_half_is_none():
    counts = count([[5, 5, 0, 0]], [[7, 7, 7, 7]], {5: 1}, {7: 1})
    assert as_lists(counts) == [[0, 0], [0, 1], [0, 1]]


def test_another_class_is_no_match():
    assert as_lists(count([[5, 5]], [[7, 7]], {5: 0}, {7: 1})) == [[0, 0], [1, 0], [0, 1]]


def test_the_void_part_of_a_prediction_leaves_the_union():
    assert count([[5, 5, 5, 5]], [[7, 7, 7, 0]], {5: 0}, {7: 0}).iou.tolist() == [1.0, 0]


def test_a_prediction_mostly_in_void_does_not_count():
    assert as_lists(count([[5, 5, 5]], [[0, 0, 7]], {5: 0}, {7: 1})) == [[0, 0], [0, 0], [0, 1]]
    assert as_lists(count([[5, 5]], [[0, 7]], {5: 0}, {7: 1})) == [[0, 0], [1, 0], [0, 1]]


def test_only_a_crowd_of_its_class_excuses_a_prediction():
    for label, false_positives in ((0, [0, 0]), (1, [0, 1])):
        counts = count([[5, 5]], [[7, 7]], {5: label}, {7: 0}, crowd_ids={7})
        assert as_lists(counts) == [[0, 0], false_positives, [0, 0]]


def test_of_several_crowds_of_a_class_only_the_last_excuses_as_in_panopticapi():
    counts = count([[5, 5, 5]], [[7, 8, 9]], {5: 0}, {7: 0, 8: 0, 9: 1}, crowd_ids=(7, 8))
    assert as_lists(counts) == [[0, 0], [1, 0], [0, 1]]


def test_qualities_of_hand_made_counts():
    counts = PanopticCounts(np.array([1.5, 0, 0]), np.array([2, 0, 0]), np.array([1, 1, 0]), np.array([1, 0, 0]))
    values = counts.qualities()
    np.testing.assert_allclose(values["pq"], [0.5, 0, np.nan])
    np.testing.assert_allclose(values["sq"], [0.75, 0, np.nan])
    np.testing.assert_allclose(values["rq"], [2 / 3, 0, np.nan])


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="must be equal"):
        count([[1, 1]], [[1], [1]], {1: 0}, {1: 0})


def scene(ids, labels, *, num_frames=1):
    id_map = torch.tensor(ids, dtype=torch.int32)[None].expand(num_frames, -1, -1)
    count = len(labels)
    return Segments(
        tuple(id_map.shape[1:]), torch.arange(1, count + 1), torch.tensor(labels), torch.ones(count), id_map=id_map
    )


def annotation_of(ids, labels, *, crowd=()):
    truth = torch.tensor(ids)
    segments = tuple(
        Segment(label, (encode_mask(truth == number),), is_crowd=number in crowd)
        for number, label in enumerate(labels, 1)
    )
    return Annotation(tuple(truth.shape), (True, False), segments)


def test_things_and_stuff_are_averaged_apart():
    metric = PanopticQuality(2)
    metric.update(scene([[1, 1, 2, 2]], [0, 1]), annotation_of([[1, 1, 1, 2]], [0, 1]))
    figures = metric.compute()
    assert figures["pq_things"] == pytest.approx(2 / 3)
    assert figures["pq_stuff"] == 0
    assert figures["pq"] == pytest.approx(1 / 3)
    assert next(iter(figures)) == "pq"


def test_a_segment_of_a_clip_is_matched_through_all_its_frames():
    masks = torch.tensor([[[1, 1]], [[1, 1]], [[1, 0]]]).bool()
    annotation = Annotation((1, 2), (True, False), (Segment(0, encode_masks(masks)),), (None, None, None))
    one_id = torch.tensor([[[1, 1]], [[1, 1]], [[1, 1]]], dtype=torch.int32)
    switched = torch.tensor([[[1, 1]], [[2, 2]], [[0, 0]]], dtype=torch.int32)
    for ids, quality in ((one_id, 1.0), (switched, 0.0)):
        metric = PanopticQuality(2)
        metric.update(Segments((1, 2), torch.tensor([1, 2]), torch.zeros(2).long(), torch.ones(2), ids), annotation)
        assert metric.compute()["rq"] == quality


def test_crowds_of_a_class_excuse_together_in_an_annotation():
    metric = PanopticQuality(2)
    metric.update(scene([[1, 1, 1]], [0]), annotation_of([[1, 2, 3]], [0, 0, 1], crowd={1, 2}))
    assert metric.counts.false_positives.tolist() == [0, 0]


def test_nothing_counted_is_nan():
    assert all(math.isnan(value) for value in PanopticQuality(2).compute().values())


def test_annotations_of_another_label_space_are_refused():
    with pytest.raises(ValueError, match="2 classes, the metric counts 3"):
        PanopticQuality(3).update(scene([[1]], [0]), annotation_of([[1]], [0]))


def test_results_of_another_size_are_refused():
    with pytest.raises(ValueError, match="sizes"):
        PanopticQuality(2).update(scene([[1]], [0]), annotation_of([[1, 1]], [0]))


def test_per_class_tables_hold_counts_and_qualities():
    metric = PanopticQuality(3, is_thing=(True, True, False))
    metric.update_maps(np.array([[5, 5, 5, 6]]), np.array([[7, 7, 7, 7]]), {5: 1, 6: 0}, {7: 1})
    table = metric.per_class()
    assert {name: table[name].tolist() for name in ("tp", "fp", "fn")} == {
        "tp": [0, 1, 0],
        "fp": [1, 0, 0],
        "fn": [0, 0, 0],
    }
    np.testing.assert_allclose(table["iou"], [0, 0.75, 0])
    np.testing.assert_allclose(table["pq"], [0, 0.75, np.nan])


def test_a_group_without_a_class_that_occurs_is_nan():
    metric = PanopticQuality(2, is_thing=(True, False))
    metric.update_maps(np.array([[5]]), np.array([[7]]), {5: 0}, {7: 0})
    figures = metric.compute()
    assert figures["pq_things"] == figures["pq"] == 1
    assert math.isnan(figures["pq_stuff"])


def test_merged_metrics_equal_one_metric():
    generator = np.random.default_rng(0)
    classes = {number: number % 3 for number in range(1, 6)}
    parts = [PanopticQuality(3) for _ in range(3)]
    for index in range(6):
        maps = generator.integers(0, 6, (2, 3, 4))
        maps[:, :, 2:] = maps[:1, :, 2:]
        for metric in (parts[0], parts[1 + index % 2]):
            metric.update_maps(*maps, classes, classes)
    parts[1].merge(parts[2])
    for name, column in parts[0].per_class().items():
        np.testing.assert_allclose(parts[1].per_class()[name], column)


def test_metrics_of_other_classes_do_not_merge():
    with pytest.raises(ValueError, match="2 classes into one of 3"):
        PanopticQuality(3).merge(PanopticQuality(2))


@pytest.mark.parametrize(
    ("prediction", "truth", "classes", "crowds", "message"),
    [
        ([[-1]], [[1]], {1: 0}, (), "prediction holds ids from -1"),
        ([[1]], [[2**31]], {1: 0}, (), "truth holds ids from"),
        ([[9]], [[1]], {1: 0}, (), r"prediction holds ids without a class: \[9\]"),
        ([[1]], [[9]], {1: 0}, (), r"truth holds ids without a class: \[9\]"),
        ([[1]], [[1]], {1: 2}, (), "has classes"),
        ([[1]], [[1]], {1: 0}, (8,), r"truth holds ids without a class: \[8\]"),
    ],
)
def test_ids_that_cannot_be_counted_are_refused(prediction, truth, classes, crowds, message):
    with pytest.raises(ValueError, match=message):
        count(prediction, truth, classes, classes, crowds)


def test_maps_of_fractions_are_refused():
    with pytest.raises(TypeError, match="dtype float64"):
        count([[0.5]], [[1]], {1: 0}, {1: 0})


@pytest.mark.parametrize("largest", [7, 2**31 - 1])
def test_overlaps_equal_counting_pair_by_pair(largest):
    generator = np.random.default_rng(largest)
    ids = np.append(0, generator.integers(1, largest + 1, 4))
    prediction, truth = ids[generator.integers(0, 5, (2, 300, 301))]
    true_ids, predicted_ids, areas = count_overlaps(prediction, truth)
    assert areas.sum() == prediction.size
    assert len(areas) == len(set(zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True)))
    for row, column, area in zip(true_ids, predicted_ids, areas, strict=True):
        assert area == np.count_nonzero((truth == row) & (prediction == column))


def write_files(folder, **changes):
    """One picture of two things, truth and prediction equal; `changes` overwrite entries of the prediction's JSON."""
    segments = [{"id": 300, "category_id": 7, "area": 2, "iscrowd": 0}, {"id": 70000, "category_id": 9, "area": 2}]
    record = {"image_id": 5, "file_name": "a.png", "segments_info": segments}
    ids = np.array([[300, 300, 70000, 70000, 0]])
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    for name in ("gt", "pred"):
        (folder / name).mkdir()
        Image.fromarray(rgb).save(folder / name / "a.png")
    categories = [{"id": 7, "name": "cat", "isthing": 1}, {"id": 9, "name": "sky", "isthing": 0}]
    (folder / "gt.json").write_text(json.dumps({"annotations": [record], "categories": categories}))
    (folder / "pred.json").write_text(json.dumps({"annotations": [{**record, **changes}]}))
    return folder / "gt.json", folder / "pred.json"


def test_equal_files_score_one(tmp_path):
    result = score_panoptic_files(*write_files(tmp_path))
    assert result.num_pictures == 1
    assert result.category_names == ("cat", "sky")
    assert {key: value for key, value in result.compute().items() if value != 1} == {}
    assert result.per_class()["tp"].tolist()[result.category_ids.index(9)] == 1


def test_progress_sees_every_picture(tmp_path):
    seen = []
    score_panoptic_files(*write_files(tmp_path), progress=lambda indices: seen.extend(indices) or seen)
    assert seen == [0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 6}, "no prediction for 1 of 1 pictures, first for image_id 5"),
        ({"file_name": "b.png"}, r"pred lacks 1 of 1 PNGs .* first b\.png of image_id 5"),
        ({"file_name": None}, "image_id 5: no file_name"),
        ({"segments_info": [{"id": 300, "category_id": 7}]}, r"pred/a\.png, image_id 5: the PNG holds id 70000"),
        ({"segments_info": [{"id": 300, "category_id": 7}] * 2}, "pred.json, image_id 5: segment id 300 occurs twice"),
        ({"segments_info": [{"id": 300, "category_id": 8}]}, "segment 300 has unknown category_id 8"),
        ({"segments_info": [{"id": -3, "category_id": 7}]}, "segment id -3: expected"),
        ({"segments_info": [{"id": 300, "category_id": 7, "area": 0}]}, "segment 300 has area 0"),
        ({"segments_info": None}, "no list segments_info"),
    ],
)
def test_files_that_do_not_fit_are_refused_with_their_names(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        score_panoptic_files(*write_files(tmp_path, **changes))


def test_a_segment_that_is_only_in_the_json_is_refused_in_predictions(tmp_path):
    segments = [{"id": number, "category_id": 7} for number in (300, 70000, 11)]
    with pytest.raises(ValueError, match="segments_info lists id 11"):
        score_panoptic_files(*write_files(tmp_path, segments_info=segments))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_true_segment_without_pixels_is_missed_and_noted(tmp_path):
    files = write_files(tmp_path)
    extra = {"id": 11, "category_id": 7, "area": 4}
    edit(files[0], lambda content: content["annotations"][0]["segments_info"].append(extra))
    with pytest.warns(UserWarning, match="id 11"):
        result = score_panoptic_files(*files)
    assert result.per_class()["fn"].tolist()[result.category_ids.index(7)] == 1
    assert len(result.notes) == 1


def test_predictions_of_unknown_pictures_are_left_out_and_noted(tmp_path):
    files = write_files(tmp_path)
    edit(files[1], lambda content: content["annotations"].append({**content["annotations"][0], "image_id": 8}))
    with pytest.warns(UserWarning, match="1 predictions left out"):
        assert score_panoptic_files(*files).num_pictures == 1


@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_listed_twice_is_refused(tmp_path, number):
    files = write_files(tmp_path)
    edit(files[number], lambda content: content["annotations"].append(content["annotations"][0]))
    with pytest.raises(ValueError, match="image_id 5 occurs twice"):
        score_panoptic_files(*files)


def test_truth_without_pictures_or_categories_is_refused(tmp_path):
    truth, prediction = write_files(tmp_path)
    edit(truth, lambda content: content.update(annotations=[]))
    with pytest.raises(ValueError, match="nothing to score"):
        score_panoptic_files(truth, prediction)
    edit(truth, lambda content: content.update(categories=[]))
    with pytest.raises(ValueError, match="`categories` must list"):
        score_panoptic_files(truth, prediction)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_files_that_are_no_panoptic_json_are_refused(tmp_path, content):
    truth, prediction = write_files(tmp_path)
    prediction.write_text(content)
    with pytest.raises(ValueError, match=r"pred\.json"):
        score_panoptic_files(truth, prediction)


def test_missing_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"pred_folder .*nowhere is not there"):
        score_panoptic_files(*write_files(tmp_path), pred_folder=tmp_path / "nowhere")


def test_pngs_without_three_planes_or_cut_short_are_refused(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match=r"grey\.png has mode L"):
        read_panoptic_png(tmp_path / "grey.png")
    Image.effect_noise((64, 64), 9).convert("RGB").save(tmp_path / "cut.png")
    data = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.png cannot be read"):
        read_panoptic_png(tmp_path / "cut.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_ids_are_read_from_three_planes(tmp_path, mode):
    Image.fromarray(np.array([[[1, 2, 3]]], dtype=np.uint8)).convert(mode).save(tmp_path / "a.png")
    assert read_panoptic_png(tmp_path / "a.png").tolist() == [[1 + 2 * 256 + 3 * 65536]]
