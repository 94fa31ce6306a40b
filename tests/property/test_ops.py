"""Properties of masks, resizing and counting that hold for any input."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from omg_head_instance import InstanceHead
from omg_head_panoptic import PanopticHead
from omg_transformers.metrics.panoptic import PanopticQuality
from omg_transformers.metrics.semantic import class_ious, count_pixels
from omg_transformers.ops.masks import (
    boxes_of_masks,
    decode_rle,
    encode_mask,
    encode_masks,
    encode_window,
    join_frames,
    mask_iou,
    rle_area,
    rle_box,
)
from omg_transformers.ops.resize import MaskResizer
from omg_transformers.structures import QueryOutput

fast = settings(max_examples=40, deadline=None)
sides = st.integers(1, 9)
masks = st.tuples(sides, sides).flatmap(lambda size: arrays(np.bool_, size))
clips = st.tuples(st.integers(1, 4), sides, sides).flatmap(lambda size: arrays(np.bool_, size))
seeds = st.integers(0, 2**32 - 1)


@fast
@given(masks)
def test_a_mask_survives_its_encoding(mask):
    rle = encode_mask(mask)
    assert np.array_equal(decode_rle(rle).numpy(), mask)
    assert rle_area(rle) == mask.sum()
    assert rle_box(rle) == tuple(boxes_of_masks(torch.from_numpy(mask)).tolist())


@fast
@given(masks)
def test_a_box_holds_the_mask_and_nothing_smaller_does(mask):
    x1, y1, x2, y2 = map(int, boxes_of_masks(torch.from_numpy(mask)).tolist())
    assert mask[y1:y2, x1:x2].sum() == mask.sum()
    if mask.any():
        assert mask[y1, x1:x2].any()
        assert mask[y2 - 1, x1:x2].any()
        assert mask[y1:y2, x1].any()
        assert mask[y1:y2, x2 - 1].any()


@fast
@given(masks, st.tuples(*[st.integers(0, 3)] * 4))
def test_a_window_is_encoded_like_the_whole(mask, margins):
    top, bottom, left, right = margins
    whole = np.pad(mask, ((top, bottom), (left, right)))
    assert encode_window(mask, origin=(top, left), size=whole.shape) == encode_mask(whole)


@fast
@given(clips)
def test_joined_frames_are_the_frames_side_by_side(clip):
    assert join_frames(encode_masks(clip), clip.shape[1:]) == encode_mask(np.concatenate(list(clip), axis=1))


@fast
@given(clips)
def test_overlaps_are_symmetric_bounded_and_one_with_oneself(clip):
    overlaps = mask_iou(torch.from_numpy(clip), torch.from_numpy(clip))
    assert torch.equal(overlaps, overlaps.T)
    assert ((overlaps >= 0) & (overlaps <= 1)).all()
    assert torch.equal(overlaps.diagonal() == 1, torch.from_numpy(clip.any((1, 2))))


def random_logits(shape, seed, scale=4.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@fast
@given(st.tuples(sides, sides), st.tuples(st.integers(1, 70), st.integers(1, 70)), st.sampled_from([1, 2, 4]), seeds)
def test_resizing_equals_interpolating_twice(grid, target, stride, seed):
    logits = random_logits((2, *grid), seed)
    padded = (grid[0] * stride, grid[1] * stride)
    once = functional.interpolate(logits[None], size=padded, mode="bilinear")
    expected = functional.interpolate(once, size=target, mode="bilinear")[0]
    resized = MaskResizer(grid, target, input_size=padded, tile_size=(16, 16)).resize(logits)
    torch.testing.assert_close(resized, expected, atol=1e-5, rtol=0)


@fast
@given(st.tuples(sides, sides), st.tuples(st.integers(1, 40), st.integers(1, 40)), seeds)
def test_resizing_a_mirrored_mask_mirrors_the_result(grid, target, seed):
    logits = random_logits((1, *grid), seed)
    resizer = MaskResizer(grid, target)
    # Coordinates are float32 and count from the left, so mirroring is exact only to their rounding.
    torch.testing.assert_close(resizer.resize(logits.flip(2)), resizer.resize(logits).flip(2), atol=1e-3, rtol=0)


@fast
@given(seeds, st.sampled_from([(40, 60), (150, 300), (1, 1)]), st.booleans(), st.sampled_from([0.3, 0.8]))
def test_the_panoptic_contest_equals_the_plain_formula(seed, size, filter_low_score, overlap_threshold):
    classes, logits = random_logits((1, 7, 4), seed, 2.0), smooth_logits((1, 7, 1, 12, 18), seed)
    (result,) = PanopticHead().postprocess(
        QueryOutput(classes, logits),
        sizes=[size],
        is_thing=(True,) * 3,
        filter_low_score=filter_low_score,
        overlap_threshold=overlap_threshold,
    )
    # Resized by the same class, so that rounding cannot decide a pixel where two queries are equal.
    resized = MaskResizer((12, 18), size).resize(logits[0, :, 0])
    expected = plain_panoptic(classes[0], resized, filter_low_score, overlap_threshold)
    assert set(zip(result.labels.tolist(), (tuple(mask) for mask in flat_masks(result)), strict=True)) == expected


def smooth_logits(shape, seed):
    coarse = random_logits((*shape[:3], 3, 4), seed, 6.0)
    return functional.interpolate(coarse.flatten(0, 2)[None], size=shape[3:], mode="bicubic")[0].view(shape)


def flat_masks(result):
    return [result.mask(index).flatten().tolist() for index in range(len(result))]


def plain_panoptic(classes, logits, filter_low_score, overlap_threshold):
    """(class, mask) of every segment, by the rule in dense form."""
    scores, labels = classes.softmax(-1).max(-1)
    kept = (labels < classes.shape[1] - 1).nonzero().flatten()
    segments = set()
    if not len(kept):
        return segments
    winner = (scores[kept, None, None] * logits[kept].sigmoid()).argmax(0)
    for place, query in enumerate(kept.tolist()):
        won, own = winner == place, logits[query] >= 0
        mask = won & own if filter_low_score else won
        if own.any() and mask.any() and won.sum().item() / own.sum().item() >= overlap_threshold:
            segments.add((int(labels[query]), tuple(mask.flatten().tolist())))
    return segments


@fast
@given(seeds, st.sampled_from([(40, 60), (150, 300), (1, 1)]))
def test_instances_equal_the_plain_formula(seed, size):
    classes, logits = random_logits((1, 5, 3), seed, 2.0), smooth_logits((1, 5, 1, 12, 18), seed)
    (result,) = InstanceHead().postprocess(QueryOutput(classes, logits), sizes=[size], is_thing=(True, True))
    # Resized by the same class, so that rounding cannot decide a pixel where two queries are equal.
    resized = MaskResizer((12, 18), size).resize(logits[0, :, 0])
    expected = []
    for query in range(5):
        inside = resized[query] > 0
        if inside.any():
            quality = float(resized[query].sigmoid()[inside].sum() / (inside.sum() + 1e-6))
            probs = classes[0, query].softmax(-1)[:-1].tolist()
            expected += [(prob * quality, label, inside.flatten().tolist()) for label, prob in enumerate(probs)]
    found = list(zip(result.scores.tolist(), result.labels.tolist(), flat_masks(result), strict=True))
    assert len(found) == len(expected)
    for ours, theirs in zip(sorted(found), sorted(expected), strict=True):
        assert abs(ours[0] - theirs[0]) < 1e-5
        assert ours[1:] == theirs[1:]


maps = st.integers(1, 4).flatmap(
    lambda count: st.tuples(*[arrays(np.int64, (6, 7), elements=st.integers(0, count))] * 2, st.just(count))
)


def panoptic_columns(prediction, truth, classes):
    metric = PanopticQuality(len(classes))
    metric.update_maps(prediction, truth, classes, classes)
    return metric.per_class()


@fast
@given(maps)
def test_panoptic_quality_is_bounded_and_one_for_the_truth(case):
    prediction, truth, count = case
    classes = {number: number - 1 for number in range(1, count + 1)}
    values = panoptic_columns(prediction, truth, classes)
    for name in ("pq", "sq", "rq"):
        seen = values[name][~np.isnan(values[name])]
        assert ((seen >= 0) & (seen <= 1)).all()
    np.testing.assert_allclose(values["pq"], values["sq"] * values["rq"])
    perfect = panoptic_columns(truth, truth, classes)["pq"]
    assert np.all(perfect[~np.isnan(perfect)] == 1)


@fast
@given(maps)
def test_class_ious_are_bounded_and_one_for_the_truth(case):
    prediction, truth, count = case
    ious = class_ious(count_pixels(prediction, truth, count))
    seen = ious[~np.isnan(ious)]
    assert ((seen >= 0) & (seen <= 1)).all()
    perfect = class_ious(count_pixels(truth, truth, count))
    assert np.all(perfect[~np.isnan(perfect)] == 1)
