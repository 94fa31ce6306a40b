"""The semantic head on scenes small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from omg_head_semantic import SemanticHead
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, QueryOutput, Segment

SIZE = (4, 4)


def run(class_probs, mask_probs, *, size=SIZE, **options):
    """class_probs: (Q, K + 1). mask_probs: (Q, 4, 4)."""
    output = QueryOutput(torch.tensor(class_probs).log()[None], mask_probs.logit()[None, :, None])
    is_thing = (True,) * (len(class_probs[0]) - 1)
    (result,) = SemanticHead().postprocess(output, sizes=[size], is_thing=is_thing, **options)
    return result


def halves(*probabilities):
    """Per query the mask probability of the left and of the right half."""
    masks = torch.empty(len(probabilities), *SIZE)
    for mask, (left, right) in zip(masks, probabilities, strict=True):
        mask[:, :2], mask[:, 2:] = left, right
    return masks


def test_class_scores_are_summed_over_queries():
    # Left: class 0 has 0.6 * 0.9 = 0.54, class 1 has 2 * 0.4 * 0.8 = 0.64: two unsure queries outvote a sure one.
    result = run([[0.6, 0.0, 0.4], [0.0, 0.4, 0.6], [0.0, 0.4, 0.6]], halves((0.9, 0.9), (0.8, 0.2), (0.8, 0.2)))
    assert result.id_map.tolist() == [[[2, 2, 1, 1]] * 4]
    assert result.ids.tolist() == [1, 2]
    assert result.labels.tolist() == [0, 1]
    assert result.scores.tolist() == pytest.approx([0.54, 0.64])


def test_classes_that_win_nowhere_are_not_listed():
    result = run([[0.6, 0.3, 0.1]], halves((0.9, 0.1)))
    assert result.labels.tolist() == [0]
    assert result.id_map.tolist() == [[[1] * 4] * 4]


def test_pixels_below_the_threshold_are_void():
    result = run([[0.8, 0.0, 0.2]], halves((0.9, 0.3)), threshold=0.5)
    assert result.id_map.tolist() == [[[1, 1, 0, 0]] * 4]
    assert result.scores.tolist() == pytest.approx([0.72])
    assert len(run([[0.8, 0.0, 0.2]], halves((0.9, 0.3)), threshold=0.9)) == 0


def test_the_border_lies_where_the_resized_scores_cross():
    # Between the halves the scores of class 0 fall from 0.8 to 0.2 as those of class 1 rise: they cross in the middle.
    result = run([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], halves((0.8, 0.2), (0.2, 0.8)), size=(2, 14))
    assert result.id_map.tolist() == [[[1] * 7 + [2] * 7] * 2]


def test_scores_never_exceed_one():
    result = run([[1.0, 0.0, 0.0]] * 3, halves((0.9, 0.9), (0.9, 0.9), (0.9, 0.9)))
    assert result.scores.tolist() == [1.0]


def test_many_classes_and_tiles_agree_with_the_plain_formula():
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn((1, 9, 41), generator=generator) * 2
    masks = torch.randn((1, 9, 2, 20, 30), generator=generator) * 3
    (result,) = SemanticHead().postprocess(QueryOutput(classes, masks), sizes=[(300, 500)], is_thing=(True,) * 40)
    scores = torch.einsum("qc,qthw->cthw", classes[0].softmax(-1)[:, :-1], masks[0].sigmoid())
    plain = torch.nn.functional.interpolate(scores, size=(300, 500), mode="bilinear")
    best, winner = plain.max(0)
    # Only where two classes are equal up to rounding may the answers differ.
    second = plain.topk(2, dim=0).values[1]
    is_clear = best - second > 1e-5
    assert is_clear.float().mean() > 0.999
    assert torch.equal(result.id_map[is_clear], (winner + 1)[is_clear].int())
    for label, score in zip(result.labels.tolist(), result.scores.tolist(), strict=True):
        assert score == pytest.approx(float(best[winner == label].mean().clamp(max=1)), abs=1e-3)


def test_missing_classes_say_what_is_needed():
    with pytest.raises(ValueError, match=r"class_logits.*class_embeds.*labels"):
        SemanticHead().postprocess(QueryOutput(None, torch.zeros(1, 1, 1, 4, 4)), sizes=[SIZE], is_thing=(True,))


def test_targets_join_the_segments_of_a_class_crowds_too():
    rows = torch.eye(4, dtype=torch.bool)[:, None, :, None].expand(4, 1, 4, 4)
    first, second, third, fourth = (encode_masks(row) for row in rows)
    segments = (Segment(1, first), Segment(0, second, is_crowd=True), Segment(1, third), Segment(-1, fourth))
    targets = SemanticHead().targets(Annotation(SIZE, (True, False), segments))
    assert targets.labels.tolist() == [0, 1]
    assert torch.equal(targets.masks, torch.stack([rows[1], rows[0] | rows[2]]))
    assert torch.equal(targets.unknown, rows[3])
