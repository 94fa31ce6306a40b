"""Procedural scenes: exact labels, pictures and clips, nothing but seed and index decides."""

from __future__ import annotations

import numpy as np
import pytest

from omg_transformers.data import ProceduralScenes, procedural_label_space
from omg_transformers.data.regions import decode_region
from omg_transformers.data.shapes import COLORS, GROUNDS, SHAPES, draw_ground, draw_shape

SIZE = (48, 65)


def masks_of(sample, frame=0):
    return [decode_region(segment.masks[frame], sample.annotation.size) for segment in sample.annotation.segments]


@pytest.mark.parametrize("num_frames", [1, 4])
def test_every_pixel_of_every_frame_has_one_label(num_frames):
    source = ProceduralScenes(SIZE, num_frames=num_frames, seed=3)
    for index in range(8):
        sample = source.sample(index)
        assert len(sample.frames) == num_frames == sample.annotation.num_frames
        for frame in range(num_frames):
            assert (np.sum(masks_of(sample, frame), 0) == 1).all()


def test_objects_have_the_colour_of_their_name():
    source, checked = ProceduralScenes((96, 96), seed=1), 0
    for index in range(10):
        sample = source.sample(index)
        for segment, mask in zip(sample.annotation.segments, masks_of(sample), strict=True):
            name = sample.label_space.names[segment.category_id]
            if sample.annotation.is_thing[segment.category_id] and mask.sum() > 50:
                color = np.array(COLORS[name.split()[0]])
                assert np.abs(sample.frames[0][mask].mean(0) - color).max() < 20, name
                checked += 1
    assert checked > 20


def test_a_number_always_gives_the_same_scene_and_another_seed_another():
    first, again, other = (ProceduralScenes(SIZE, seed=seed).sample(5) for seed in (1, 1, 2))
    assert np.array_equal(first.frames[0], again.frames[0])
    assert first.annotation == again.annotation
    assert first.annotation != other.annotation


def test_track_ids_are_unique_and_grounds_have_none():
    annotation = ProceduralScenes(SIZE, num_frames=3, num_objects=(4, 4), seed=2).sample(0).annotation
    things = [segment for segment in annotation.segments if annotation.is_thing[segment.category_id]]
    assert len({segment.track_id for segment in things}) == len(things) > 1
    assert {segment.track_id for segment in annotation.segments if segment not in things} == {-1}


def test_objects_of_a_clip_move():
    sample = ProceduralScenes((96, 96), num_frames=3, num_objects=(1, 1), seed=4).sample(0)
    thing = next(segment for segment in sample.annotation.segments if segment.track_id == 1)
    first, last = (np.argwhere(decode_region(thing.masks[frame], (96, 96))).mean(0) for frame in (0, 2))
    assert np.hypot(*(last - first)) > 1


def test_some_object_is_hidden_for_a_while():
    source = ProceduralScenes((64, 64), num_frames=6, num_objects=(6, 6), seed=0)
    segments = [segment for index in range(10) for segment in source.sample(index).annotation.segments]
    assert any(None in segment.masks and any(segment.masks) for segment in segments)


def test_pictures_and_clips_serve_their_own_tasks():
    assert "panoptic" in ProceduralScenes(SIZE).tasks
    assert "video_panoptic" in ProceduralScenes(SIZE, num_frames=2).tasks


def test_the_label_space_names_every_colour_of_every_shape():
    space = procedural_label_space()
    assert len(space) == 13 * 13 + len(GROUNDS)
    assert space.is_thing[space.index("red circle")] and not space.is_thing[space.index("striped ground")]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fits_its_radius_and_is_not_a_sliver(shape):
    mask = draw_shape(shape, (40, 40), 20, 0.3, (80, 80))
    rows, columns = np.nonzero(mask)
    assert np.hypot(rows - 39.5, columns - 39.5).max() < 21.5
    assert mask.sum() > 0.15 * np.pi * 20**2


def test_a_shape_outside_the_picture_has_no_pixel():
    assert not draw_shape("circle", (-50, 10), 20, 0, (30, 30)).any()


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_ground_fills_the_picture(ground):
    texture = draw_ground(ground, SIZE, np.random.default_rng(0))
    assert texture.shape == (*SIZE, 3) and texture.dtype == np.uint8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (4, 90)}, "size is"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"num_objects": (3, 2)}, "num_objects is"),
    ],
)
def test_impossible_scenes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ProceduralScenes(**options)


def test_an_easier_world_has_fewer_things():
    scenes = ProceduralScenes(size=(48, 48), num_shapes=2, num_colors=3)
    space = scenes.label_space
    assert sum(space.is_thing) == 6
    used = {segment.category_id for index in range(20) for segment in scenes.sample(index).annotation.segments}
    assert max(used) < len(space) and {index for index in used if space.is_thing[index]} == set(range(6))


@pytest.mark.parametrize("options", [{"num_shapes": 0}, {"num_colors": 99}])
def test_a_world_without_or_with_unknown_things_is_refused(options):
    with pytest.raises(ValueError, match=r"expected 1 to \d+"):
        ProceduralScenes(**options)
