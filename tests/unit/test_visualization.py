"""Overlays: every segment is seen, nothing else is changed, names stay inside the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_transformers.labels import LabelSpace, builtin_label_space
from omg_transformers.ops.masks import encode_masks
from omg_transformers.structures import Segments
from omg_transformers.visualization import TrackColors, draw_overlay, segment_colors
from omg_transformers.visualization.places import deepest_point, free_place

SPACE = LabelSpace.from_names(["person", "grass"], things=["person"])


def picture(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def halves(height: int, width: int) -> Segments:
    """The left third is one person, the right third grass, the middle void."""
    ids = torch.zeros(1, height, width, dtype=torch.int32)
    ids[..., : max(1, width // 3)] = 1
    if width >= 3:
        ids[..., -(width // 3) :] = 2
    return Segments((height, width), torch.tensor([1, 2]), torch.tensor([0, 1]), torch.tensor([0.9, 0.8]), ids)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (20, 30), (10, 2000), (2000, 10), (300, 400)])
@pytest.mark.parametrize("legend", [False, True])
def test_every_size_is_drawn(size, legend):
    result = draw_overlay(picture(*size), halves(*size), SPACE, legend=legend)
    assert result.dtype == np.uint8
    assert result.shape[1:] == (size[1], 3)
    assert (result.shape[0] > size[0]) == legend


def test_void_keeps_its_pixels_and_segments_do_not():
    result = draw_overlay(picture(90, 120), halves(90, 120), SPACE, names=False)
    assert (result[:, 40:80] == 100).all()
    assert (result[:, :40] != 100).any(-1).all()
    assert (result[:, 80:] != 100).any(-1).all()


def test_the_picture_given_is_not_written():
    image = picture(90, 120)
    draw_overlay(image, halves(90, 120), SPACE)
    assert (image == 100).all()


def test_names_are_written_and_can_be_left_out():
    plain = draw_overlay(picture(300, 400), halves(300, 400), SPACE, names=False)
    named = draw_overlay(picture(300, 400), halves(300, 400), SPACE)
    scoreless = draw_overlay(picture(300, 400), halves(300, 400), SPACE, scores=False)
    assert 0 < (named != plain).any(-1).sum() < 300 * 400 / 10
    assert 0 < (scoreless != plain).any(-1).sum() < (named != plain).any(-1).sum()


def test_a_small_mask_is_drawn_over_a_large_one():
    masks = torch.zeros(2, 1, 60, 60, dtype=torch.bool)
    masks[0, :, 20:40, 20:40] = True
    masks[1] = True
    segments = Segments(
        (60, 60), torch.tensor([1, 2]), torch.tensor([0, 0]), torch.ones(2), rles=tuple(map(encode_masks, masks))
    )
    result = draw_overlay(picture(60, 60), segments, SPACE)
    assert result[30, 30].tolist() != result[5, 5].tolist()


def test_a_clip_is_drawn_frame_by_frame():
    ids = torch.zeros(2, 30, 30, dtype=torch.int32)
    ids[1] = 1
    segments = Segments((30, 30), torch.tensor([1]), torch.tensor([0]), torch.ones(1), ids)
    assert (draw_overlay(picture(30, 30), segments, SPACE, frame=0) == 100).all()
    assert (draw_overlay(picture(30, 30), segments, SPACE, frame=1) != 100).any()


def test_segments_without_classes_are_drawn():
    segments = Segments(
        (90, 90), torch.tensor([1]), torch.tensor([-1]), torch.ones(1), torch.ones(1, 90, 90, dtype=torch.int32)
    )
    assert (draw_overlay(picture(90, 90), segments, None) != 100).any()


def test_no_segments_give_the_picture():
    none = torch.zeros(0)
    segments = Segments((9, 8), none.long(), none.long(), none, rles=())
    assert (draw_overlay(picture(9, 8), segments, SPACE, legend=True) == 100).all()


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(ValueError, match="draw on the picture that was segmented"):
        draw_overlay(picture(9, 8), halves(8, 9), SPACE)


def test_stuff_has_its_classs_colour_and_things_differ():
    space = builtin_label_space("coco_panoptic")
    person, grass = space.index("person"), space.index("grass")
    colors = segment_colors([person] * 12 + [grass, -1, -1], space)
    assert len(set(colors)) == len(colors)
    assert colors[0] == space.colors[person]
    assert colors[12] == space.colors[grass]


def test_the_deepest_point_is_inside_and_far_from_the_edge():
    mask = np.zeros((300, 500), bool)
    mask[100:140, 50:450] = True
    mask[100:220, 200:320] = True
    x, y, depth = deepest_point(mask)
    assert mask[y, x]
    assert abs(x - 260) < 10
    assert abs(y - 160) < 10
    assert 50 < depth < 70
    assert deepest_point(np.zeros((3, 3), bool)) is None


def test_a_ring_gets_its_name_on_the_ring():
    rows, columns = np.mgrid[:200, :200]
    radius = np.hypot(rows - 100, columns - 100)
    mask = (radius > 60) & (radius < 90)
    x, y, _ = deepest_point(mask)
    assert mask[y, x]


def test_names_avoid_each_other_and_the_edge():
    part = (slice(0, 100), slice(0, 100)), np.ones((100, 100), bool)
    taken = []
    for _ in range(3):
        box = free_place((2, 50), (40, 10), taken, part, (100, 100))
        assert box[0] >= 0
        assert all(box[1] >= other[3] or box[3] <= other[1] for other in taken)
        taken.append(box)
    assert free_place((50, 50), (101, 10), [], part, (100, 100)) is None


def test_outlines_follow_masks_but_not_the_pictures_edge():
    ids = torch.zeros(1, 40, 50, dtype=torch.int32)
    ids[:, :20, :25] = 5
    ids[:, 30:, 30:] = 2
    segments = Segments((40, 50), torch.tensor([5, 2]), torch.tensor([0, 0]), torch.ones(2), ids)
    result = draw_overlay(picture(40, 50), segments, SPACE, names=False)
    for inner, edges in (((5, 5), [(19, 5), (5, 24)]), ((35, 40), [(30, 40), (35, 30)])):
        assert all((result[edge] > result[inner]).any() for edge in edges)
    assert (result[0, :24] == result[5, 5]).all()
    assert (result[39, 31:] == result[35, 40]).all()
    assert (result[25] == 100).all()


def test_an_id_keeps_its_colour_through_a_video_and_others_differ():
    colors = TrackColors(SPACE)
    first = colors.of([1, 2, 5], [0, 0, 1])
    assert first == segment_colors([0, 0, 1], SPACE)
    # 1 is gone, 2 is now taken for grass, 7 is new: it must not get the colour that 1 may come back with.
    assert colors.of([2, 7], [1, 0])[0] == first[1]
    assert len({*first, *colors.of([7], [0])}) == 4
    assert colors.of([1], [0]) == first[:1]


def test_ids_of_things_can_be_written():
    plain = draw_overlay(picture(300, 400), halves(300, 400), SPACE, scores=False)
    with_ids = draw_overlay(picture(300, 400), halves(300, 400), SPACE, scores=False, ids=True)
    assert (with_ids != plain)[:, :200].any()
    assert (with_ids == plain)[:, 250:].all()  # stuff has none
