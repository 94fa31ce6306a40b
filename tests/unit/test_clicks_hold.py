"""In the final mask every click lies on the side that it names; several answers are compared by their stability."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_transformers import (
    InteractiveSession,
    OMGSegConfig,
    OMGSegImageProcessor,
    OMGSegModel,
    OMGSegPipeline,
    OMGSegProcessor,
)
from omg_transformers.ops.masks import decode_rle, encode_mask
from omg_transformers.readout.clicks import DISK_RADIUS, hold_clicks
from omg_transformers.readout.stability import mask_stability, weigh_by_stability
from omg_transformers.structures import QueryOutput, Segments

SIZE = (200, 400)
RADIUS = DISK_RADIUS * 400


def left_half():
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[:, :200] = True
    return mask


def segments_of(*masks, frames=1):
    count = len(masks)
    rles = tuple(tuple(None if mask is None else encode_mask(mask) for _ in range(frames)) for mask in masks)
    info = {"queries": torch.arange(count)}
    return Segments(SIZE, torch.arange(1, count + 1), torch.full((count,), -1), torch.ones(count), rles=rles, info=info)


def hold(mask, points, labels=None, *, num_queries=1, content=SIZE):
    """The first mask of one object that was clicked at `points`, (x, y) in pixels of the input."""
    output = QueryOutput(None, torch.zeros(1, num_queries, 1, 50, 100), content_sizes=(content,))
    labels = None if labels is None else torch.tensor(labels)[None, None]
    (held,) = hold_clicks([segments_of(mask)], output, torch.tensor(points, dtype=torch.float32)[None, None], labels)
    return decode_rle(held.rles[0][0])


def distances(x, y):
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return (rows - y).square().add((columns - x).square()).sqrt()


def test_a_mask_that_agrees_with_its_clicks_is_left_alone():
    assert torch.equal(hold(left_half(), [[50.5, 50.5], [300.5, 50.5]], [1, 0]), left_half())


@pytest.mark.parametrize(("x", "label"), [(300, 1), (100, 0)])
def test_around_a_click_that_was_ignored_its_label_holds(x, label):
    held = hold(left_half(), [[x + 0.5, 50.5]], [label])
    disk = distances(x, 50) <= RADIUS
    assert torch.equal(held, left_half() | disk if label else left_half() & ~disk)


def test_without_labels_all_clicks_are_inside():
    assert hold(left_half(), [[300.5, 50.5]])[50, 300]


def test_no_point_says_nothing():
    assert torch.equal(hold(left_half(), [[50.5, 50.5], [-10, -10]], [1, -10]), left_half())


def test_between_clicks_of_two_kinds_the_nearer_counts():
    held = hold(left_half(), [[100.5, 50.5], [103.5, 50.5]], [0, 1])
    assert held[50, 99:106].tolist() == [False, False, False, True, True, True, True]


def test_of_two_clicks_into_one_pixel_the_later_counts():
    assert not hold(left_half(), [[100.2, 50.5], [100.7, 50.5]], [1, 0])[50, 100]
    assert torch.equal(hold(left_half(), [[100.2, 50.5], [100.7, 50.5]], [0, 1]), left_half())


def test_clicks_at_the_border_hold():
    held = hold(left_half(), [[400, 200], [0, 0]], [1, 0])
    assert held[199, 399]
    assert not held[0, 0]


@pytest.mark.parametrize("x", range(0, 400, 37))
def test_places_come_back_exactly_from_the_input(x):
    scale = np.float32(213 / 400)
    held = hold(torch.zeros(SIZE, dtype=torch.bool), [[float(np.float32(x) * scale), 0.5]], content=(200, 213))
    assert held[0, x]
    assert torch.equal(held, distances(x, 0) <= RADIUS)


def test_a_mask_that_loses_all_its_pixels_is_none():
    dot = torch.zeros(SIZE, dtype=torch.bool)
    dot[50, 50] = True
    output = QueryOutput(None, torch.zeros(1, 1, 1, 50, 100), content_sizes=(SIZE,))
    points, labels = torch.tensor([[[[50.5, 50.5]]]]), torch.tensor([[[0]]])
    (held,) = hold_clicks([segments_of(dot)], output, points, labels)
    assert held.rles == ((None,),)


def test_all_candidates_of_an_object_and_only_they_hold_its_clicks():
    output = QueryOutput(None, torch.zeros(1, 6, 1, 50, 100), content_sizes=(SIZE,))
    points = torch.tensor([[[[300.5, 50.5]], [[100.5, 50.5]]]])
    (held,) = hold_clicks([segments_of(*[left_half()] * 6)], output, points, None)
    found = [bool(decode_rle(rle)[50, 300]) for (rle,) in held.rles]
    assert found == [True] * 3 + [False] * 3


def test_clicks_speak_of_the_first_frame_of_a_clip():
    output = QueryOutput(None, torch.zeros(1, 1, 2, 50, 100), content_sizes=(SIZE,))
    (held,) = hold_clicks([segments_of(left_half(), frames=2)], output, torch.tensor([[[[300.5, 50.5]]]]), None)
    assert [bool(decode_rle(rle)[50, 300]) for rle in held.rles[0]] == [True, False]


def test_stability_is_the_share_that_stays_when_the_threshold_moves():
    logits = torch.tensor([[3.0, 0.5, -0.5, -3.0], [3.0, 3.0, -3.0, -3.0], [-3.0, -3.0, -3.0, -3.0]])[:, None, None]
    assert mask_stability(logits).tolist() == pytest.approx([1 / 3, 1.0, 0.0])


def test_stability_does_not_see_the_padding():
    logits = torch.full((1, 1, 1, 50, 100), 0.5)
    logits[..., :50] = 3.0
    scores = [
        float(
            weigh_by_stability([segments_of(left_half())], QueryOutput(None, logits, content_sizes=(size,)))[0].scores
        )
        for size in (SIZE, (200, 200))
    ]
    assert scores == pytest.approx([0.5, 1.0])


POINTS, LABELS = [[[10, 10], [60, 40], [30, 25], [31.5, 25.5]], [[12, 5]]], [[1, 0, 1, 0], [1]]


@pytest.fixture(scope="module", params=[False, True], ids=["rule", "correction"])
def pipe(request):
    """A random model ignores what is said to it."""
    torch.manual_seed(0)
    model = OMGSegModel(OMGSegConfig.tiny(prompt_correction=request.param)).eval()
    processor = OMGSegProcessor(OMGSegImageProcessor(size={"shortest_edge": 64}))
    return OMGSegPipeline(model=model, processor=processor, device="cpu")


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def clicks_hold(segments, per_object=1):
    return all(
        bool(segments.mask(index)[0, int(y), int(x)]) == bool(label)
        for index in range(len(segments))
        for (x, y), label in zip(POINTS[index // per_object], LABELS[index // per_object], strict=True)
    )


def test_the_random_model_itself_ignores_clicks(pipe, picture):
    inputs = pipe.processor([picture], input_points=[POINTS], input_labels=[LABELS])
    sizes = inputs["original_sizes"]
    with torch.no_grad():
        (raw,) = pipe.processor.post_process(pipe.model(**inputs), task="interactive", target_sizes=sizes)
    assert not clicks_hold(raw)


def test_clicks_hold_in_the_pipeline(pipe, picture):
    (found,) = pipe.segment([picture], input_points=POINTS, input_labels=LABELS)
    assert len(found) == 2
    assert clicks_hold(found)


def test_clicks_hold_in_a_session_and_in_all_its_candidates(pipe, picture):
    session = InteractiveSession(pipe.model, pipe.processor)
    session.set_picture(picture)
    for number, (points, labels) in enumerate(zip(POINTS, LABELS, strict=True), 1):
        session.add_points(points, labels, object_id=number)
    assert clicks_hold(session.masks())
    several = session.masks(multimask_output=True)
    assert len(several) == 6
    assert clicks_hold(several, per_object=3)


def test_candidates_are_scored_by_quality_times_stability(pipe, picture):
    (one,) = pipe.segment([picture], input_boxes=[[5, 5, 60, 40]])
    (several,) = pipe.segment([picture], input_boxes=[[5, 5, 60, 40]], multimask_output=True)
    inputs = pipe.processor([picture], input_boxes=[[[5, 5, 60, 40]]])
    with torch.no_grad():
        masks = pipe.model(**inputs).mask_logits[0, :, :, :16, : -(-90 // 4)]
    torch.testing.assert_close(several.scores[0], one.scores[0] * mask_stability(masks)[0])
    assert 0 < several.scores[0] < one.scores[0]
