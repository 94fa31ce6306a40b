"""The interactive head on scenes small enough to work out by hand, and the questions it asks in training."""

from __future__ import annotations

import pytest
import torch

from omg_head_interactive import InteractiveHead
from omg_transformers.ops.masks import encode_masks
from omg_transformers.plugins.contract import AsksPrompts
from omg_transformers.readout.drawn_prompts import boxes_around, points_inside
from omg_transformers.structures import Annotation, QueryOutput, QueryTargets, Segment

SIZE = (4, 4)
HEAD = InteractiveHead()


def output_of(*masks, iou=None):
    logits = torch.tensor(masks, dtype=torch.float32)[None, :, None]
    return QueryOutput(None, logits, None if iou is None else torch.tensor([iou]).logit())


LEFT = [[2.0, -2.0, -2.0, -2.0]] * 4
RIGHT = [[-2.0, -2.0, 3.0, 1.0]] * 4
NOTHING = [[-2.0] * 4] * 4


def run(output, **options):
    (result,) = HEAD.postprocess(output, sizes=[SIZE], is_thing=(), **options)
    return result


def test_every_prompt_gets_an_answer_in_its_order():
    result = run(output_of(RIGHT, NOTHING, LEFT, iou=[0.3, 0.1, 0.9]))
    assert result.labels.tolist() == [-1, -1, -1]
    assert result.scores.tolist() == pytest.approx([0.3, 0.1, 0.9])
    assert [result.mask(index)[0, 0].int().tolist() for index in range(3)] == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]]


def test_without_predicted_quality_the_score_is_the_mean_probability_inside():
    result = run(output_of(RIGHT, NOTHING))
    expected = torch.tensor([3.0, 1.0]).sigmoid().mean()
    assert result.scores.tolist() == pytest.approx([float(expected), 0.0])


def test_the_threshold_is_a_logit():
    assert run(output_of(RIGHT), mask_threshold=2.0).mask(0)[0, 0].int().tolist() == [0, 0, 1, 0]


def test_proposals_are_the_best_first_and_no_more_than_exist():
    output = output_of(RIGHT, NOTHING, LEFT, iou=[0.3, 0.1, 0.9])
    assert run(output, num_proposals=2).info["queries"].tolist() == [2, 0]
    assert run(output, num_proposals=10).info["queries"].tolist() == [2, 0, 1]


def test_proposals_need_predicted_quality():
    with pytest.raises(ValueError, match="iou_logits"):
        run(output_of(LEFT), num_proposals=1)


def targets_of(*masks, num_frames=1):
    stacked = torch.stack(masks) if masks else torch.zeros((0, num_frames, 8, 8), dtype=torch.bool)
    return QueryTargets(torch.arange(len(masks)), stacked, torch.zeros((num_frames, 8, 8), dtype=torch.bool))


def mask_of(rows, columns, *, frame=0, num_frames=1):
    mask = torch.zeros((num_frames, 8, 8), dtype=torch.bool)
    mask[frame, slice(*rows), slice(*columns)] = True
    return mask


def ask(*targets, seed=0):
    return HEAD.query_inputs(targets, size=(8, 8), generator=torch.Generator().manual_seed(seed))


def test_few_segments_are_asked_about_again_and_again_evenly():
    _, (answer,) = ask(targets_of(mask_of((0, 2), (0, 2)), mask_of((4, 8), (4, 8)), mask_of((0, 1), (7, 8))))
    assert len(answer.labels) == HEAD.num_prompts
    assert sorted(answer.labels.bincount().tolist()) == [6, 7, 7]


def test_many_segments_are_asked_about_once_at_most():
    masks = [mask_of((row, row + 1), (column, column + 1)) for row in range(8) for column in range(4)]
    _, (answer,) = ask(targets_of(*masks))
    assert len(answer.labels.unique()) == HEAD.num_prompts


def test_one_batch_asks_with_points_or_with_boxes_and_both_happen():
    target = targets_of(mask_of((0, 4), (0, 4)))
    kinds = {name: tuple(tensor.shape) for seed in range(8) for name, tensor in ask(target, seed=seed)[0].items()}
    assert kinds == {"input_points": (1, 20, 1, 2), "input_boxes": (1, 20, 4)}
    assert all(len(ask(target, seed=seed)[0]) == 1 for seed in range(8))


def test_of_a_sample_without_segments_nothing_is_claimed():
    inputs, (first, second) = ask(targets_of(), targets_of(mask_of((0, 4), (0, 4))))
    (tensor,) = inputs.values()
    assert torch.isfinite(tensor).all()
    assert not first.masks.any()
    assert first.unknown.all()
    assert first.labels.tolist() == [-1] * HEAD.num_prompts
    assert not second.unknown.any()


def test_empty_targets_are_not_asked_about():
    _, (answer,) = ask(targets_of(mask_of((0, 0), (0, 0)), mask_of((0, 4), (0, 4))))
    assert answer.labels.unique().tolist() == [1]


def test_a_clip_is_asked_about_the_first_frame_a_segment_is_in():
    late = mask_of((2, 4), (6, 8), frame=1, num_frames=3)
    late[2, 0, 0] = True
    for seed in range(4):
        inputs, _ = ask(targets_of(late, num_frames=3), seed=seed)
        for name, tensor in inputs.items():
            centres = tensor[0, :, 0] if name == "input_points" else (tensor[0, :, :2] + tensor[0, :, 2:]) / 2
            assert (centres[:, 0] > 5.5).all()
            assert ((centres[:, 1] > 1.5) & (centres[:, 1] < 4.5)).all()


def test_points_are_inside_and_half_of_them_deepest():
    mask = torch.zeros((40, 7, 9), dtype=torch.bool)
    mask[:, 1:6, 2:7] = True
    mask[:, 3, 7:] = True
    points = points_inside(mask, (7, 9), generator=torch.Generator().manual_seed(0))
    columns, rows = points.floor().long().unbind(1)
    assert mask[torch.arange(40), rows, columns].all()
    share = ((columns == 4) & (rows == 3)).float().mean()
    assert 0.3 < share < 0.7


def test_boxes_lie_around_the_mask_within_five_percent_and_in_the_picture():
    mask = torch.zeros((50, 60, 100), dtype=torch.bool)
    mask[:, 10:50, 0:80] = True
    boxes = boxes_around(mask, (60, 100), generator=torch.Generator().manual_seed(0))
    exact = torch.tensor([0.0, 10.0, 80.0, 50.0])
    assert ((boxes - exact).abs() <= torch.tensor([4.0, 2.0, 4.0, 2.0])).all()
    assert (boxes >= 0).all()
    assert (boxes - exact).abs().amax(0).min() > 1


def annotation_of(*segments, num_frames=1):
    return Annotation((8, 8), (True,), tuple(segments), (None,) * num_frames)


THING = Segment(0, encode_masks(mask_of((1, 6), (2, 7))))
CROWD = Segment(0, encode_masks(mask_of((0, 1), (0, 8))), is_crowd=True)
DOT = Segment(0, encode_masks(mask_of((7, 8), (0, 1))))


def test_standard_boxes_are_exact_and_leave_crowds_out():
    prompts = HEAD.evaluation_prompts(annotation_of(CROWD, THING, DOT), kind="box")
    assert prompts == {"input_boxes": [[2, 1, 7, 6], [0, 7, 1, 8]]}


def test_standard_clicks_are_at_the_middle_of_the_deepest_pixel():
    prompts = HEAD.evaluation_prompts(annotation_of(THING, CROWD, DOT), kind="click")
    assert prompts == {"input_points": [[[4.5, 3.5]], [[0.5, 7.5]]]}


def test_standard_random_clicks_are_inside_and_always_the_same():
    def ask_once():
        return HEAD.evaluation_prompts(annotation_of(THING, DOT), kind="random_click")["input_points"]

    ((x, y),), dot = ask_once()
    assert 2 < x < 7
    assert 1 < y < 6
    assert dot == [[0.5, 7.5]]
    assert ask_once() == ask_once()


def test_a_standard_prompt_about_a_clip_is_about_the_first_frame_of_its_segment():
    late = mask_of((2, 4), (6, 8), frame=1, num_frames=3)
    late[2, 0, 0] = True
    annotation = annotation_of(Segment(0, encode_masks(late)), num_frames=3)
    assert HEAD.evaluation_prompts(annotation, kind="box") == {"input_boxes": [[6, 2, 8, 4]]}


@pytest.mark.parametrize("kind", HEAD.prompt_kinds)
def test_without_segments_there_is_nothing_to_ask(kind):
    assert isinstance(HEAD, AsksPrompts)
    assert HEAD.evaluation_prompts(annotation_of(CROWD), kind=kind) == {}


def test_an_unknown_kind_of_standard_prompt_names_the_known_ones():
    with pytest.raises(ValueError, match=r"kind is 'scribble'.*box, click, random_click"):
        HEAD.evaluation_prompts(annotation_of(THING), kind="scribble")
