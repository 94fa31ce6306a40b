"""Panoptic quality: hand-counted scenes and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from omg_transformers.metrics.panoptic import PanopticCounts, PanopticQuality, count_matches, qualities
from omg_transformers.ops.masks import encode_mask, encode_masks
from omg_transformers.structures import Annotation, Segment, Segments


def count(prediction, truth, prediction_classes, truth_classes, crowd_ids=()):
    return count_matches(
        np.array(prediction),
        np.array(truth),
        prediction_classes,
        truth_classes,
        num_classes=2,
        crowd_ids=crowd_ids,
    )


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
    values = qualities(counts)
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
