"""Composed pictures: the labels are those of the object that one sees."""

from __future__ import annotations

import numpy as np
import pytest

from omg_transformers.data import ComposedScenes, ProceduralScenes, SampleError, read_coco_panoptic
from omg_transformers.data.regions import decode_region, encode_region
from omg_transformers.labels import LabelSpace
from omg_transformers.structures import Annotation, Sample, Segment

SPACE = LabelSpace.from_names(["red", "green", "blue", "floor"], things=["red", "green", "blue"])
COLORS = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220], [120, 120, 120], [0, 0, 0]])
VOID = 4
SIZE = (100, 120)


class PaintedSource:
    """Pictures whose colour tells the class; void is black."""

    tasks = ("panoptic",)
    label_space = SPACE

    def __init__(self, class_maps):
        self.class_maps = class_maps
        self.num_samples = len(class_maps)

    def sample(self, index):
        classes = self.class_maps[index]
        segments = [
            Segment(number, (encode_region(np.asfortranarray(classes == number)),), number + 1)
            for number in range(4)
            if (classes == number).any()
        ]
        void = encode_region(np.asfortranarray(classes == VOID))
        annotation = Annotation(classes.shape, SPACE.is_thing, tuple(segments), (void,))
        return Sample(f"painted-{index}", (COLORS[classes].astype(np.uint8),), annotation, SPACE, self.tasks)


def scene(number):
    classes = np.full(SIZE, 3)
    classes[:8] = VOID
    classes[20:60, 10:50] = number
    classes[70:80, 90:100] = (number + 1) % 3
    return classes


SOURCE = PaintedSource([scene(number) for number in range(3)])


def masks_of(sample):
    size = sample.annotation.size
    masks = [decode_region(segment.masks[0], size) for segment in sample.annotation.segments]
    return masks, decode_region(sample.annotation.void[0], size)


def test_segments_and_void_cover_every_pixel_once():
    composed = ComposedScenes(SOURCE, num_objects=(3, 6), seed=1)
    for index in range(20):
        masks, void = masks_of(composed.sample(index))
        assert (np.sum(masks, 0) + void == 1).all()


def test_the_label_of_a_pixel_is_the_object_that_is_seen_there():
    composed, checked = ComposedScenes(SOURCE, num_objects=(3, 6), seed=2), 0
    for index in range(20):
        sample = composed.sample(index)
        distance = np.abs(sample.frames[0][:, :, None].astype(int) - COLORS).sum(-1)
        seen = distance.argmin(-1)
        for segment, mask in zip(sample.annotation.segments, masks_of(sample)[0], strict=True):
            # The soft rim mixes two colours.
            inner = mask & np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1) & np.roll(mask, -2, 1)
            if inner.sum() > 30:
                assert (seen[inner] == segment.category_id).mean() > 0.97
                checked += 1
    assert checked > 60


def test_pasted_objects_are_new_segments():
    plain, composed = SOURCE.sample(0), ComposedScenes(SOURCE, num_objects=(2, 2), seed=3)
    counts = [len(composed.sample(index).annotation.segments) for index in range(10)]
    assert max(counts) == len(plain.annotation.segments) + 2


def test_an_object_that_covers_all_leaves_nothing_else():
    full = np.full((64, 64), VOID)
    full[2:62, 2:62] = 0
    composed = ComposedScenes(PaintedSource([full]), num_objects=(1, 1), object_scale=(2.0, 2.0), seed=0)
    for index in range(5):
        annotation = composed.sample(index).annotation
        assert [segment.category_id for segment in annotation.segments] == [0]
        assert annotation.void == (None,)


def test_a_thing_of_which_little_is_left_becomes_void():
    composed = ComposedScenes(SOURCE, num_objects=(4, 6), object_scale=(0.5, 0.9), min_visible=0.5, seed=4)
    demoted = 0
    for index in range(30):
        sample = composed.sample(index)
        original = SOURCE.sample(int(sample.sample_id.split("-")[1].split("+")[0]))
        masks, void = masks_of(sample)
        left = {segment.track_id: mask for segment, mask in zip(sample.annotation.segments, masks, strict=True)}
        for segment, mask in zip(original.annotation.segments, masks_of(original)[0], strict=True):
            if segment.category_id == 3:
                continue
            if segment.track_id in left:
                assert left[segment.track_id].sum() >= 0.5 * mask.sum()
            else:
                demoted += (mask & void).any()
    assert demoted > 3


def test_void_stays_void_where_nothing_is_pasted():
    sample = ComposedScenes(SOURCE, num_objects=(0, 0)).sample(0)
    assert masks_of(sample)[1][:8].all()
    assert np.array_equal(sample.frames[0][:8], np.zeros((8, 120, 3)))


def test_a_number_always_gives_the_same_picture():
    first, again = ComposedScenes(SOURCE, seed=5), ComposedScenes(SOURCE, seed=5)
    assert first.sample(3).annotation == again.sample(3).annotation
    first.sample(0)
    assert np.array_equal(first.sample(3).frames[0], again.sample(3).frames[0])


def test_the_sources_own_pictures_are_not_written():
    before = SOURCE.sample(0).frames[0].copy()
    composed = ComposedScenes(SOURCE, num_objects=(3, 3))
    pictures = [composed.sample(index).frames[0].copy() for index in range(3)]
    assert all(np.array_equal(composed.sample(index).frames[0], pictures[index]) for index in range(3))
    assert np.array_equal(SOURCE.sample(0).frames[0], before)


def test_each_pass_uses_every_picture_once():
    composed = ComposedScenes(SOURCE, seed=6)
    for first in (0, 3):
        used = {composed.sample(first + place).sample_id.split("+")[0] for place in range(3)}
        assert used == {"painted-0", "painted-1", "painted-2"}


def test_some_pictures_stay_as_they_are():
    composed = ComposedScenes(SOURCE, paste_probability=0.5, seed=7)
    untouched = ["+" not in composed.sample(index).sample_id for index in range(40)]
    assert 8 < sum(untouched) < 32


def test_objects_at_the_border_and_crowds_are_not_cut_out():
    touching = np.full(SIZE, 3)
    touching[:50, :50] = 0
    assert ComposedScenes(PaintedSource([touching])).cut_outs(0) == ()
    assert len(ComposedScenes(SOURCE).cut_outs(0)) == 1


def test_a_large_picture_is_reduced_first():
    sample = ComposedScenes(SOURCE, max_side=60).sample(0)
    assert sample.annotation.size == (50, 60) == sample.frames[0].shape[:2]


def test_clips_are_refused():
    with pytest.raises(SampleError, match="2 frames"):
        ComposedScenes(ProceduralScenes((32, 32), num_frames=2)).sample(0)


def test_donors_of_another_label_space_are_refused():
    with pytest.raises(ValueError, match="MappedSource"):
        ComposedScenes(SOURCE, ProceduralScenes())


@pytest.mark.parametrize("options", [{"num_objects": (2, 1)}, {"object_scale": (0, 1)}, {"paste_probability": 1.5}])
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ComposedScenes(SOURCE, **options)


def test_real_pictures_are_composed_without_gaps(shared_data):
    composed = ComposedScenes(read_coco_panoptic(shared_data / "coco", "train2017"), max_side=160, seed=8)
    for index in range(3):
        masks, void = masks_of(composed.sample(index))
        assert (np.sum(masks, 0) + void == 1).all()
