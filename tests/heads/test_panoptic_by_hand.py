"""The panoptic head on scenes small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from omg_head_panoptic import PanopticHead
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, QueryOutput, Segment

IS_THING = (True, False)
SIZE = (4, 4)


def output_of(*queries):
    """Queries of (probability of class 0, of class 1, mask probabilities (4, 4) or (T, 4, 4))."""
    classes = torch.tensor([[first, second, 1 - first - second] for first, second, _ in queries]).log()
    masks = torch.stack([(mask if mask.ndim == 3 else mask[None]).logit() for _, _, mask in queries])
    return QueryOutput(classes[None], masks[None])


def block(rows, columns, inside=0.9, outside=0.1):
    mask = torch.full(SIZE, outside)
    mask[slice(*rows), slice(*columns)] = inside
    return mask


def run(*queries, **options):
    (result,) = PanopticHead().postprocess(output_of(*queries), sizes=[SIZE], is_thing=IS_THING, **options)
    return result


TOP, BOTTOM, ALL = block((0, 2), (0, 4)), block((2, 4), (0, 4)), block((0, 4), (0, 4))


def test_each_pixel_goes_to_the_larger_product_of_score_and_probability():
    result = run((0.8, 0.1, TOP), (0.1, 0.7, BOTTOM))
    assert result.id_map.tolist() == [[[1] * 4] * 2 + [[2] * 4] * 2]
    assert result.labels.tolist() == [0, 1]
    torch.testing.assert_close(result.scores, torch.tensor([0.8, 0.7]))
    assert result.info["areas"].tolist() == [8, 8]


def test_a_query_that_lost_more_than_a_fifth_of_its_mask_is_dropped():
    # The second query owns 4 pixels more than it can win: 12 of 16 = 0.75 < 0.8.
    result = run((0.9, 0.0, block((0, 1), (0, 4))), (0.0, 0.8, ALL))
    assert result.id_map.unique().tolist() == [0, 1]
    result = run((0.9, 0.0, block((0, 1), (0, 4))), (0.0, 0.8, ALL), overlap_threshold=0.75)
    assert result.id_map.tolist() == [[[1] * 4] + [[2] * 4] * 3]


def test_pixels_below_one_half_belong_to_nobody_unless_asked_for():
    queries = [(0.8, 0.1, TOP)]
    assert run(*queries).id_map.tolist() == [[[1] * 4] * 2 + [[0] * 4] * 2]
    assert run(*queries, filter_low_score=False).id_map.tolist() == [[[1] * 4] * 4]


def test_stuff_of_one_class_is_one_segment_and_things_are_not():
    stuff = run((0.1, 0.6, TOP), (0.1, 0.8, BOTTOM))
    assert stuff.id_map.unique().tolist() == [1]
    assert stuff.scores.tolist() == pytest.approx([0.8])
    assert stuff.info["areas"].tolist() == [16]
    assert run((0.6, 0.1, TOP), (0.8, 0.1, BOTTOM)).id_map.unique().tolist() == [1, 2]


def test_void_and_unsure_queries_do_not_take_part():
    assert len(run((0.2, 0.2, ALL))) == 0
    assert len(run((0.6, 0.2, ALL), threshold=0.7)) == 0
    assert run((0.2, 0.2, ALL)).id_map.tolist() == [[[0] * 4] * 4]


def test_the_first_of_equal_queries_wins():
    result = run((0.8, 0.1, ALL), (0.8, 0.1, ALL))
    assert result.id_map.unique().tolist() == [1]
    assert len(result) == 1


def test_mask_suppression_drops_the_worse_of_two_doubles():
    double = block((0, 2), (0, 4), inside=0.95)
    # The worse query has the surer mask: it wins every pixel unless it is suppressed.
    queries = [(0.5, 0.3, block((0, 2), (0, 4), inside=0.55)), (0.4, 0.35, double)]
    assert run(*queries).scores.tolist() == pytest.approx([0.4])
    assert run(*queries, mask_nms_threshold=0.6).scores.tolist() == pytest.approx([0.5])


def test_areas_are_summed_and_ids_kept_through_a_clip():
    # In the second frame the first query is half covered (8 of 16 left), over both frames it keeps 24 of 32.
    covered = torch.stack([ALL, ALL])
    cover = torch.stack([block((0, 0), (0, 0)), block((0, 2), (0, 4), inside=0.99)])
    result = run((0.8, 0.1, covered), (0.9, 0.05, cover), overlap_threshold=0.75)
    assert result.id_map.tolist() == [[[1] * 4] * 4, [[2] * 4] * 2 + [[1] * 4] * 2]


def test_broken_masks_are_an_error_and_not_a_segment():
    with pytest.raises(ValueError, match="mask_logits holds NaN"):
        run((0.8, 0.1, torch.full(SIZE, float("nan"))))


def test_missing_classes_say_what_is_needed():
    output = QueryOutput(None, torch.zeros(1, 1, 1, 4, 4))
    with pytest.raises(ValueError, match=r"class_logits.*class_embeds.*labels"):
        PanopticHead().postprocess(output, sizes=[SIZE], is_thing=IS_THING)


def test_targets_are_things_in_order_then_stuff_by_class():
    rows = torch.eye(4, dtype=torch.bool)[:, None, :, None].expand(4, 1, 4, 4)
    top, second, third, fourth = (encode_masks(row) for row in rows)
    segments = (
        Segment(2, top),
        Segment(0, second),
        Segment(0, third, is_crowd=True),
        Segment(2, fourth),
        Segment(0, (None,)),
    )
    annotation = Annotation(SIZE, (True, True, False), segments)
    targets = PanopticHead().targets(annotation)
    assert targets.labels.tolist() == [0, 2]
    assert torch.equal(targets.masks, torch.stack([rows[1], rows[0] | rows[3]]))
    assert torch.equal(targets.unknown, rows[2])
