"""Picture, truth and prediction on one page: every size, clips, equal colours for what belongs together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_transformers.labels import LabelSpace
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Annotation, Segment, Segments
from omg_transformers.visualization import draw_side_by_side, segment_colors, shown_frames
from omg_transformers.visualization.side_by_side import CLIP_PANEL_SIDE, PANEL_SIDE, _at_size, _matching_colors

SPACE = LabelSpace.from_names(["person", "grass"], things=["person"])
PERSON, GRASS = 0, 1


def part(size, rows, columns, num_frames=1):
    """A rectangle in every frame, bounds in tenths of the picture."""
    mask = torch.zeros(num_frames, *size, dtype=torch.bool)
    (top, bottom), (left, right) = (
        [round(bound * side / 10) for bound in pair] for pair, side in zip((rows, columns), size, strict=True)
    )
    mask[:, top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return encode_masks(mask)


def scene(size, num_frames=1):
    """Two persons on grass, and two guesses: the right person well found, the left one not."""
    left, right = (part(size, (2, 8), bounds, num_frames) for bounds in ((1, 4), (6, 9)))
    grass = part(size, (0, 10), (0, 10), num_frames)
    annotation = Annotation(
        size,
        SPACE.is_thing,
        (Segment(GRASS, grass), Segment(PERSON, left), Segment(PERSON, right)),
        (None,) * num_frames,
    )
    prediction = Segments(
        size,
        torch.tensor([5, 3]),
        torch.tensor([PERSON, PERSON]),
        torch.tensor([0.9, 0.8]),
        rles=(right, part(size, (0, 1), (0, 1), num_frames)),
    )
    frames = np.full((num_frames, *size, 3), 120, np.uint8)
    return (frames[0] if num_frames == 1 else frames), annotation, prediction


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 3), (60, 80), (900, 1300)])
def test_every_size_is_drawn_as_large_as_a_panel(size):
    image = draw_side_by_side(*scene(size), SPACE, caption="a picture")
    assert image.width > 3 * min(PANEL_SIDE, round(PANEL_SIDE * size[1] / max(size)))
    assert PANEL_SIDE * size[0] / max(size) < image.height < PANEL_SIDE * size[0] / max(size) + 100


def test_what_was_given_is_not_written():
    frame, annotation, prediction = scene((90, 120))
    draw_side_by_side(frame, annotation, prediction, SPACE)
    assert (frame == 120).all()


def test_a_predicted_thing_has_the_colour_of_the_one_it_covers_and_others_a_free_one():
    _, annotation, prediction = scene((90, 120))
    truth = Segments(
        (90, 120),
        torch.arange(1, 4),
        torch.tensor([GRASS, PERSON, PERSON]),
        torch.ones(3),
        rles=tuple(segment.masks for segment in annotation.segments),
    )
    true_colors, colors = _matching_colors([(truth, prediction)], SPACE)
    first, second = segment_colors([PERSON, PERSON], SPACE)
    assert true_colors == [SPACE.colors[GRASS], first, second]
    assert colors == [second, first]


def test_segments_without_classes_take_the_colours_of_what_they_cover():
    frame, annotation, prediction = scene((90, 120))
    unnamed = Segments(prediction.size, prediction.ids, torch.tensor([-1, -1]), prediction.scores, rles=prediction.rles)
    truth = Segments(
        (90, 120), torch.tensor([1]), torch.tensor([PERSON]), torch.ones(1), rles=(annotation.segments[2].masks,)
    )
    true_colors, colors = _matching_colors([(truth, unnamed)], SPACE)
    assert colors[0] == true_colors[0]
    assert colors[1] != true_colors[0]
    draw_side_by_side(frame, annotation, unnamed, None)


def test_maps_and_masks_of_one_result_are_drawn_alike():
    frame, annotation, prediction = scene((90, 120))
    masks = [prediction.mask(index) for index in range(2)]
    id_map = sum(mask * identity for mask, identity in zip(masks, prediction.ids.tolist(), strict=True)).int()
    painted = Segments(prediction.size, prediction.ids, prediction.labels, prediction.scores, id_map)
    pages = [np.asarray(draw_side_by_side(frame, annotation, result, SPACE)) for result in (prediction, painted)]
    assert (pages[0] == pages[1]).all()


def test_void_is_striped_on_the_truth_only():
    frame, annotation, prediction = scene((90, 120))
    none = Annotation(annotation.size, annotation.is_thing, (), (None,))
    void = Annotation(annotation.size, annotation.is_thing, (), part((90, 120), (0, 10), (0, 10)))
    plain, striped = (
        np.asarray(draw_side_by_side(frame, truth, prediction, SPACE)).astype(int) for truth in (none, void)
    )
    changed = np.flatnonzero((plain != striped).any((0, 2)))
    assert plain.shape[1] / 3 < changed.min() + 20
    assert changed.max() < plain.shape[1] * 2 / 3 + 20


def test_doubtful_results_that_may_overlap_are_left_out_and_the_heading_says_so():
    frame, annotation, prediction = scene((90, 120))
    doubtful = Segments(
        prediction.size, prediction.ids, prediction.labels, torch.tensor([0.9, 0.1]), rles=prediction.rles
    )
    alone = Segments(
        prediction.size, prediction.ids[:1], prediction.labels[:1], torch.tensor([0.9]), rles=prediction.rles[:1]
    )
    pages = [np.asarray(draw_side_by_side(frame, annotation, result, SPACE)) for result in (doubtful, alone)]
    rows = np.flatnonzero((pages[0] != pages[1]).any((1, 2)))
    assert len(rows) > 0
    assert rows.max() < 40


def test_no_segments_at_all_are_drawn():
    frame, annotation, _ = scene((90, 120))
    none = torch.zeros(0)
    empty = Segments((90, 120), none.long(), none.long(), none, rles=())
    draw_side_by_side(frame, Annotation((90, 120), annotation.is_thing, ()), empty, SPACE)


def test_up_to_four_frames_are_shown_from_the_first_to_the_last():
    assert [shown_frames(count) for count in (1, 2, 4, 5, 100)] == [
        [0],
        [0, 1],
        [0, 1, 2, 3],
        [0, 1, 3, 4],
        [0, 33, 66, 99],
    ]


def test_a_clip_has_a_row_per_frame_that_is_shown_and_no_other_is_looked_at():
    frames, annotation, prediction = scene((30, 120), 9)
    seen = []

    class Late:
        def __len__(self):
            return 9

        def __getitem__(self, index):
            seen.append(index)
            return frames[index]

    image = draw_side_by_side(Late(), annotation, prediction, SPACE)
    assert set(seen) == set(shown_frames(9))
    row = CLIP_PANEL_SIDE // 4
    assert 4 * row < image.height < 6 * row


def test_thin_masks_keep_their_place_when_reduced():
    _, _, prediction = scene((900, 1200))
    small = _at_size(prediction, 0, (90, 120))
    assert small.mask(0).sum() == prediction.mask(0).sum() / 100


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("frame", "frame has size"),
        ("prediction", "prediction has size"),
        ("frames", "give all of the clip"),
        ("tracks", "prediction has 2 frames"),
    ],
)
def test_what_does_not_fit_is_refused(change, match):
    frame, annotation, prediction = scene((90, 120))
    if change == "frame":
        frame = frame[:-1]
    elif change == "prediction":
        prediction = scene((91, 120))[2]
    elif change == "frames":
        frame = frame[None].repeat(2, 0)
    else:
        prediction = scene((90, 120), 2)[2]
    with pytest.raises(ValueError, match=match):
        draw_side_by_side(frame, annotation, prediction, SPACE)
