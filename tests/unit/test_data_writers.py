"""Data sets are written in the layouts of the field: read back they are the same, and what is lost is said."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_transformers.data import ProceduralScenes, SampleError, open_layout
from omg_transformers.data.frames import decode_frames
from omg_transformers.data.readers.outlines import region_of_polygons
from omg_transformers.data.regions import decode_region, encode_region, region_area
from omg_transformers.data.writers import WRITERS, format_written, write_source
from omg_transformers.data.writers.outlines import outline_of_mask
from omg_transformers.labels import LabelSpace
from omg_transformers.structures import Annotation, Sample, Segment

from .drawn_samples import SIZE, SPACE, TASKS, ListSource, box_region, drawn_sample, drawn_source, with_annotation

VIDEO_KINDS = ("youtube_vis", "davis")
# COCO panoptic files are read into COCO's own classes unless told otherwise.
READ_WITH_SPACE = {"coco_panoptic": {"label_space": SPACE}}


def read(kind, root, split="train"):
    return open_layout(kind, root, split, **READ_WITH_SPACE.get(kind, {}))


def content(source):
    """All that samples tell: names, pixels, classes, numbers, masks, void."""
    found = []
    for index in range(source.num_samples):
        sample = source.sample(index)
        annotation = sample.annotation
        names = sample.label_space.names
        segments = [
            (
                None if segment.category_id < 0 else names[segment.category_id],
                segment.track_id,
                segment.is_crowd,
                tuple(None if rle is None else rle["counts"] for rle in segment.masks),
            )
            for segment in annotation.segments
        ]
        pixels = [np.asarray(picture).tobytes() for picture in decode_frames(sample)]
        void = [None if rle is None else rle["counts"] for rle in annotation.void]
        found.append((sample.sample_id, annotation.size, pixels, sorted(segments, key=repr), void))
    return found


def random_sample(rng, number, num_frames):
    """Random blobs that overlap, things, stuff, a crowd, void."""
    size = (int(rng.integers(6, 24)), int(rng.integers(6, 24)))
    # Videos without any thing are refused by the reader of YouTube-VIS.
    segments = [Segment(int(rng.integers(4)), (encode_region(blob(rng, size)),) * num_frames, 1)]
    for place in range(1, int(rng.integers(1, 5))):
        masks = tuple(encode_region(blob(rng, size)) if rng.random() < 0.8 else None for _ in range(num_frames))
        if any(masks):
            segments.append(Segment(int(rng.integers(len(SPACE))), masks, place + 1, bool(rng.random() < 0.1)))
    void = tuple(encode_region(blob(rng, size)) if rng.random() < 0.5 else None for _ in range(num_frames))
    frames = tuple(rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(num_frames))
    annotation = Annotation(size, SPACE.is_thing, tuple(segments), void)
    return Sample(f"{number}", frames, annotation, SPACE, TASKS)


def blob(rng, size):
    mask = rng.random(size) < 0.15
    top, left = (int(rng.integers(0, side - 2)) for side in size)
    mask[top : top + int(rng.integers(2, 12)), left : left + int(rng.integers(2, 12))] = True
    return mask


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(sorted(WRITERS)))
def test_what_was_written_and_read_stays_the_same_when_written_and_read_again(seed, kind):
    rng = np.random.default_rng(seed)
    num_frames = int(rng.integers(1, 4)) if kind in VIDEO_KINDS else 1
    source = ListSource([random_sample(rng, number, num_frames) for number in (1, 2)])
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        write_source(source, kind, first, "train")
        once = read(kind, first)
        write_source(once, kind, second, "train")
        assert content(read(kind, second)) == content(once)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_an_outline_fills_to_exactly_its_mask(seed):
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 16)), int(rng.integers(1, 16)))
    mask = rng.random(size) < rng.choice([0.2, 0.5, 0.8, 1])
    points = [float(value) for point in outline_of_mask(mask) for value in point]
    rle = region_of_polygons([points], size, where="mask") if points else None
    assert (decode_region(rle, size) == mask).all()


@pytest.mark.parametrize("kind", ["coco_panoptic", "coco_instances"])
def test_pictures_come_back_as_they_were(tmp_path, kind):
    source = drawn_source(0, 3)
    written = write_source(source, kind, tmp_path, "train")
    expected, found = content(source), content(read(kind, tmp_path))
    assert written.losses == {}
    assert (written.num_samples, written.num_frames, written.num_segments) == (3, 3, 12)
    for one, other in zip(expected, found, strict=True):
        assert one[:3] == other[:3]
        assert {(name, masks) for name, _, _, masks in one[3]} == {(name, masks) for name, _, _, masks in other[3]}


def test_things_come_back_from_yolo_and_stuff_is_told(tmp_path):
    source = drawn_source(0, 3)
    written = write_source(source, "yolo_seg", tmp_path, "train")
    assert written.losses == {"stuff segments were left out": 6}
    for one, other in zip(content(source), content(read("yolo_seg", tmp_path)), strict=True):
        things = [(name, masks) for name, _, _, masks in one[3] if name not in ("grass", "sky")]
        assert [(name, masks) for name, _, _, masks in other[3]] == things


def test_tracks_come_back_from_youtube_vis(tmp_path):
    source = drawn_source(0, 2, 4)
    write_source(source, "youtube_vis", tmp_path, "train")
    for one, other in zip(content(source), content(read("youtube_vis", tmp_path)), strict=True):
        things = {(name, masks) for name, _, _, masks in one[3] if name not in ("grass", "sky")}
        assert {(name, masks) for name, _, _, masks in other[3]} == things
        assert one[:3] == other[:3]


def test_objects_keep_their_numbers_in_davis(tmp_path):
    source = drawn_source(0, 2, 4)
    written = write_source(source, "davis", tmp_path, "train")
    assert written.losses == {"stuff segments were left out": 8 // 2, "objects lost their class": 4}
    for one, other in zip(content(source), content(read("davis", tmp_path)), strict=True):
        assert {(number, masks) for _, number, _, masks in other[3]} == {
            (number, masks) for name, number, _, masks in one[3] if name not in ("grass", "sky")
        }


def test_void_comes_back_from_panoptic_and_davis(tmp_path):
    void = box_region(0, 50, 6, 60)
    sample = drawn_sample(0)
    things = sample.annotation.segments[2:]
    source = ListSource([with_annotation(sample, segments=things, void=(void,))])
    write_source(source, "davis", tmp_path / "davis", "train")
    assert read("davis", tmp_path / "davis").sample(0).annotation.void == (void,)
    write_source(source, "coco_panoptic", tmp_path / "coco", "train")
    # What no segment covers is void there as well.
    expected = SIZE[0] * SIZE[1] - sum(region_area(segment.masks[0]) for segment in things)
    assert region_area(read("coco_panoptic", tmp_path / "coco").sample(0).annotation.void[0]) == expected


def test_overlaps_are_cut_in_panoptic_with_the_small_in_front(tmp_path):
    segments = (Segment(0, (box_region(0, 0, 20, 20),), 1), Segment(1, (box_region(5, 5, 10, 10),), 2))
    source = ListSource([with_annotation(drawn_sample(0), segments=segments)])
    written = write_source(source, "coco_panoptic", tmp_path, "train")
    assert written.losses == {"segments lie behind others in part and were cut": 1}
    large, small = read("coco_panoptic", tmp_path).sample(0).annotation.segments
    assert (region_area(large.masks[0]), region_area(small.masks[0])) == (400 - 25, 25)


def test_frames_without_annotation_stay_so_in_davis(tmp_path):
    whole = encode_region(np.ones(SIZE, bool))
    sample = drawn_sample(0, 3)
    segments = tuple(replace(segment, masks=(segment.masks[0], None, None)) for segment in sample.annotation.segments)
    source = ListSource([with_annotation(sample, segments=segments, void=(None, whole, whole))])
    write_source(source, "davis", tmp_path, "train")
    found = read("davis", tmp_path).sample(0)
    assert len(found.frames) == 3
    assert [region_area(rle) for rle in found.annotation.void] == [0, region_area(whole), region_area(whole)]


def test_clips_become_pictures_where_the_layout_has_none(tmp_path):
    written = write_source(drawn_source(0, 2, 3), "coco_instances", tmp_path, "train")
    assert written.losses == {"clips became single pictures, without tracks": 2}
    assert read("coco_instances", tmp_path).num_samples == 6


def test_objects_without_a_class_become_the_only_one(tmp_path):
    write_source(drawn_source(0, 1, 2), "davis", tmp_path / "davis", "train")
    objects = read("davis", tmp_path / "davis")
    write_source(objects, "yolo_seg", tmp_path / "yolo", "train")
    names = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"]
    assert list(names.values()) == ["object"]


def test_ids_of_pictures_stay_whole_numbers(tmp_path):
    samples = [replace(drawn_sample(number), sample_id=name) for number, name in enumerate(("a b", "7", "A_b"))]
    write_source(ListSource(samples), "coco_instances", tmp_path, "train")
    images = json.loads((tmp_path / "annotations" / "instances_train.json").read_text())["images"]
    assert [(image["id"], image["file_name"]) for image in images] == [
        (1, "a_b.png"),
        (7, "000000000007.png"),
        (2, "A_b-2.png"),
    ]


def test_a_second_split_joins_the_first(tmp_path):
    write_source(drawn_source(0, 2), "yolo_seg", tmp_path, "train")
    write_source(drawn_source(2, 1), "yolo_seg", tmp_path, "val")
    about = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert (about["train"], about["val"]) == ("images/train", "images/val")
    assert read("yolo_seg", tmp_path, "val").num_samples == 1


def test_the_name_of_a_split_in_a_deeper_folder_becomes_one_word(tmp_path):
    assert write_source(drawn_source(0, 1), "coco_instances", tmp_path, "VOC2012/train").split == "VOC2012_train"
    assert read("coco_instances", tmp_path, "VOC2012_train").num_samples == 1


def test_a_second_split_with_other_names_is_refused(tmp_path):
    write_source(drawn_source(0, 1), "yolo_seg", tmp_path, "train")
    other = LabelSpace.from_names(["cat"])
    sample = replace(drawn_sample(0), label_space=other)
    with pytest.raises(ValueError, match=r"data.yaml names other classes"):
        write_source(ListSource([sample], other), "yolo_seg", tmp_path, "val")


@pytest.mark.parametrize("kind", sorted(WRITERS))
def test_a_split_that_is_there_is_not_overwritten(tmp_path, kind):
    write_source(drawn_source(0, 1), kind, tmp_path, "train")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="is there already"):
        write_source(drawn_source(1, 1), kind, tmp_path, "train")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_bad_samples_are_left_out_on_request(tmp_path):
    class Broken(ListSource):
        def sample(self, index):
            if index == 1:
                raise SampleError("the second is bad")
            return super().sample(index)

    source = Broken(drawn_source(0, 3).samples)
    with pytest.raises(SampleError, match="the second is bad"):
        write_source(source, "yolo_seg", tmp_path / "all", "train")
    written = write_source(source, "yolo_seg", tmp_path / "some", "train", on_error="skip")
    assert (written.num_samples, written.skipped) == (2, ("the second is bad",))
    assert "left out: the second is bad" in format_written(written)


def test_endless_sources_need_a_limit(tmp_path):
    scenes = ProceduralScenes((24, 36))
    with pytest.raises(ValueError, match="endless: say with limit"):
        write_source(scenes, "coco_instances", tmp_path, "train")
    assert write_source(scenes, "coco_instances", tmp_path, "train", limit=2).num_samples == 2


def test_an_unknown_layout_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"kind is 'yolo'.*yolo_seg"):
        write_source(drawn_source(0, 1), "yolo", tmp_path, "train")
