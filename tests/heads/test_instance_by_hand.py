"""The instance head on scenes small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from omg_head_instance import InstanceHead
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, QueryOutput, Segment

IS_THING = (True, True, False)
SIZE = (4, 4)


def output_of(*queries, iou=None):
    """Queries of (class probabilities with void, mask probabilities (4, 4))."""
    classes = torch.tensor([probs for probs, _ in queries]).log()
    masks = torch.stack([mask.logit()[None] for _, mask in queries])
    return QueryOutput(classes[None], masks[None], None if iou is None else torch.tensor([iou]).logit())


def block(rows, columns, inside=0.9, outside=0.1):
    mask = torch.full(SIZE, outside)
    mask[slice(*rows), slice(*columns)] = inside
    return mask


def run(*queries, iou=None, **options):
    output = output_of(*queries, iou=iou)
    (result,) = InstanceHead().postprocess(output, sizes=[SIZE], is_thing=IS_THING, **options)
    return result


TOP = block((0, 2), (0, 4))


def test_the_score_is_class_probability_times_mean_probability_inside():
    mask = TOP.clone()
    mask[0, 0] = 0.6
    result = run(([0.7, 0.0, 0.0, 0.3], mask))
    assert result.labels.tolist() == [0]
    assert result.scores.tolist() == pytest.approx([0.7 * (7 * 0.9 + 0.6) / 8], rel=1e-5)
    assert torch.equal(result.mask(0)[0], mask > 0.5)


def test_one_query_answers_for_several_classes_and_never_for_stuff():
    result = run(([0.3, 0.4, 0.2, 0.1], TOP))
    assert result.labels.tolist() == [1, 0]
    assert result.scores.tolist() == pytest.approx([0.36, 0.27], rel=1e-5)


def test_stuff_uses_up_places_before_it_is_dropped_as_in_the_original():
    assert run(([0.3, 0.1, 0.5, 0.1], TOP), max_per_image=2).labels.tolist() == [0]


def test_fewer_pairs_than_wanted_are_all_given():
    assert len(run(([0.3, 0.4, 0.2, 0.1], TOP), max_per_image=1000)) == 2


def test_results_come_best_first_whatever_the_order_of_the_queries():
    result = run(([0.2, 0.0, 0.0, 0.8], TOP), ([0.9, 0.0, 0.0, 0.1], block((2, 4), (0, 2))))
    assert result.scores.tolist() == pytest.approx([0.81, 0.18], rel=1e-5)
    assert result.info["queries"].tolist() == [1, 0]


def test_empty_masks_and_low_scores_are_left_out():
    empty = torch.full(SIZE, 0.2)
    assert len(run(([1.0, 0.0, 0.0, 0.0], empty))) == 0
    assert len(run(([0.5, 0.0, 0.0, 0.5], TOP), threshold=0.44)) == 1
    assert len(run(([0.5, 0.0, 0.0, 0.5], TOP), threshold=0.46)) == 0


def test_a_probability_of_exactly_one_half_is_outside():
    assert len(run(([1.0, 0.0, 0.0, 0.0], torch.full(SIZE, 0.5)))) == 0


def test_predicted_quality_lowers_the_score_when_asked_for():
    query = ([0.5, 0.0, 0.0, 0.5], TOP)
    assert run(query, iou=[0.5], use_iou_score=True).scores.tolist() == pytest.approx([0.225], rel=1e-5)
    assert run(query, iou=[0.5]).scores.tolist() == pytest.approx([0.45], rel=1e-5)


def test_predicted_quality_that_is_missing_is_an_error():
    with pytest.raises(ValueError, match="iou_logits"):
        run(([0.5, 0.0, 0.0, 0.5], TOP), use_iou_score=True)


def test_mask_suppression_keeps_the_best_of_doubles():
    queries = [([0.4, 0.3, 0.0, 0.3], TOP), ([0.6, 0.0, 0.0, 0.4], block((0, 2), (0, 3)))]
    result = run(*queries, mask_nms_threshold=0.7)
    assert result.info["queries"].tolist() == [1]
    result = run(*queries, mask_nms_threshold=0.8)
    assert result.info["queries"].tolist() == [1, 0]


def test_frames_without_the_object_are_absent():
    output = output_of(([0.9, 0.0, 0.0, 0.1], TOP))
    gone = torch.full_like(output.mask_logits, -5.0)
    clip = QueryOutput(output.class_logits, torch.cat([gone, output.mask_logits], dim=2))
    (result,) = InstanceHead().postprocess(clip, sizes=[SIZE], is_thing=IS_THING)
    assert result.rles[0][0] is None
    assert result.mask(0).sum((1, 2)).tolist() == [0, 8]


def test_targets_are_the_things_and_crowds_are_unknown():
    rows = torch.eye(4, dtype=torch.bool)[:, None, :, None].expand(4, 1, 4, 4)
    first, second, third, fourth = (encode_masks(row) for row in rows)
    segments = (Segment(1, first), Segment(2, second), Segment(0, third, is_crowd=True))
    targets = InstanceHead().targets(Annotation(SIZE, IS_THING, segments, fourth))
    assert targets.labels.tolist() == [1]
    assert torch.equal(targets.masks, rows[:1])
    assert torch.equal(targets.unknown, rows[2] | rows[3])
