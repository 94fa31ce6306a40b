"""Streets: KITTI-STEP, MOTS and CamVid."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import SampleError, detect_layouts, open_layout
from omg_transformers.data.readers.camvid import camvid_label_space
from omg_transformers.data.readers.kitti_step import kitti_step_label_space, mots_label_space
from omg_transformers.data.regions import region_area
from omg_transformers.labels import builtin_label_space

SIZE = (8, 10)
CITYSCAPES = builtin_label_space("cityscapes")


def write(root, pictures, masks, frames, suffix="png"):
    for folder in (root / pictures, root / masks):
        folder.mkdir(parents=True)
    for number, ids in enumerate(frames):
        Image.new("RGB", SIZE[::-1]).save(root / pictures / f"{number:06d}.{suffix}")
        Image.fromarray(ids).save(root / masks / f"{number:06d}.png")
    return root


def step_map(*rows):
    """Colours of KITTI-STEP: per row (class, object)."""
    colors = np.zeros((*SIZE, 3), np.uint8)
    for place, (category, number) in enumerate(rows):
        colors[place] = (category, number // 256, number % 256)
    colors[len(rows) :, :, 0] = 255
    return colors


def step_set(root, *frames, pictures="images/train/0000"):
    return write(root, pictures, "panoptic_maps/train/0000", frames)


def described(source):
    return [
        (source.label_space.names[segment.category_id], [region_area(rle) for rle in segment.masks], segment.is_crowd)
        for segment in source.sample(0).annotation.segments
    ]


def test_red_is_the_class_and_the_other_colours_the_object(tmp_path):
    rows = [(0, 0), (13, 1), (13, 700), (11, 5)]
    source = open_layout("kitti_step", step_set(tmp_path, step_map(*rows), step_map(rows[2])))
    assert described(source) == [
        ("road", [10, 0], False), ("person", [10, 0], False), ("car", [10, 0], False), ("car", [10, 10], False),
    ]  # fmt: skip
    annotation = source.sample(0).annotation
    assert [region_area(rle) for rle in annotation.void] == [40, 70]
    assert [segment.track_id % 2**16 for segment in annotation.segments[1:]] == [5, 1, 700]


def test_a_car_or_person_without_object_is_a_crowd(tmp_path):
    source = open_layout("kitti_step", step_set(tmp_path, step_map((13, 0), (13, 2), (10, 0))))
    assert described(source) == [("sky", [10], False), ("car", [10], True), ("car", [10], False)]


def test_what_is_not_followed_is_stuff_here_and_a_crowd_among_the_things_of_cityscapes(tmp_path):
    root = step_set(tmp_path, step_map((14, 0)))
    assert described(open_layout("kitti_step", root)) == [("truck", [10], False)]
    assert described(open_layout("kitti_step", root, label_space=CITYSCAPES)) == [("truck", [10], True)]
    assert not kitti_step_label_space().is_thing[14] and CITYSCAPES.is_thing[14]


@pytest.mark.parametrize("pictures", ["images/train/0000", "training/image_02/0000", "train/image_02/0000"])
def test_frames_are_found_where_kitti_has_them(tmp_path, pictures):
    source = open_layout("kitti_step", step_set(tmp_path, step_map((0, 0)), pictures=pictures))
    assert source.sample(0).frames[0].is_file()
    assert source.tasks == ("video_instance", "video_object", "video_panoptic", "video_semantic")


def test_a_class_beyond_cityscapes_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"000000\.png holds the classes 40 in red: expected 0 to 18, or 255"):
        open_layout("kitti_step", step_set(tmp_path, step_map((40, 0)))).sample(0)


def test_a_grey_map_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"000000\.png has mode L: expected the colours of KITTI-STEP"):
        open_layout("kitti_step", step_set(tmp_path, np.zeros(SIZE, np.uint8))).sample(0)


def mots_map(*values):
    ids = np.zeros(SIZE, np.uint16)
    for place, value in enumerate(values):
        ids[place] = value
    return ids


def test_values_of_mots_are_class_and_object(tmp_path):
    frames = [mots_map(1005, 2001, 10_000), mots_map(2001, 2001)]
    source = open_layout("mots", write(tmp_path, "training/image_02/0002", "instances/0002", frames))
    assert described(source) == [("car", [10, 0], False), ("pedestrian", [10, 20], False)]
    annotation = source.sample(0).annotation
    assert [region_area(rle) for rle in annotation.void] == [10, 0]
    assert [segment.track_id for segment in annotation.segments] == [1005, 2001]
    assert source.tasks == ("video_instance", "video_object")


def test_pedestrians_are_persons_in_other_spaces(tmp_path):
    root = write(tmp_path, "images/0002", "instances/0002", [mots_map(2001)])
    assert described(open_layout("mots", root, label_space=CITYSCAPES)) == [("person", [10], False)]


def test_motschallenge_keeps_its_folders_in_train(tmp_path):
    write(tmp_path / "train", "images/0002", "instances/0002", [mots_map(2001)], suffix="jpg")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, detection.splits) == ("mots", ("train",))
    assert open_layout("mots", tmp_path).sample(0).frames[0].is_file()


def test_a_value_of_no_class_is_refused(tmp_path):
    root = write(tmp_path, "images/0002", "instances/0002", [mots_map(7001)])
    with pytest.raises(SampleError, match=r"000000\.png holds the values 7001: expected class \* 1000 \+ object"):
        open_layout("mots", root).sample(0)


def test_missing_pictures_of_a_sequence_are_named(tmp_path):
    root = write(tmp_path, "images/0002", "instances/0002", [mots_map(2001)])
    write(tmp_path, "elsewhere", "instances/0005", [mots_map(2001)])
    with pytest.raises(SampleError, match="0005 is not there: expected the frames of the video 0005"):
        open_layout("mots", root).sample(1)


def test_kitti_step_is_detected(tmp_path):
    found = detect_layouts(step_set(tmp_path, step_map((0, 0))))
    assert [(detection.layout.name, detection.splits) for detection in found] == [("kitti_step", ("train",))]


def test_label_spaces_of_streets_know_void():
    assert (kitti_step_label_space().void_ids, mots_label_space().void_ids) == ((255,), (10,))
    assert len(camvid_label_space()) == 11 and camvid_label_space().void_ids == (11,)


def camvid_set(root, *values, line=None):
    ids = np.full(SIZE, 11, np.uint8)
    for place, value in enumerate(values):
        ids[place] = value
    write(root, "train", "trainannot", [ids])
    (root / "train.txt").write_text(line or "train/000000.png trainannot/000000.png\n")
    return root


def test_pairs_of_the_list_are_pictures_with_classes_and_void(tmp_path):
    source = open_layout("camvid", camvid_set(tmp_path, 0, 8, 8))
    assert described(source) == [("sky", [10], False), ("car", [20], False)]
    assert region_area(source.sample(0).annotation.void[0]) == 50
    assert source.tasks == ("interactive", "semantic")


def test_paths_from_the_authors_machine_are_read_from_the_root(tmp_path):
    root = camvid_set(tmp_path, 0, line="/SegNet/CamVid/train/000000.png /SegNet/CamVid/trainannot/000000.png\n")
    assert open_layout("camvid", root).sample(0).frames[0].is_file()


def test_classes_of_camvid_are_found_in_cityscapes_by_synonym(tmp_path):
    source = open_layout("camvid", camvid_set(tmp_path, 4, 9), label_space=CITYSCAPES)
    assert [name for name, *_ in described(source)] == ["sidewalk", "person"]


def test_a_line_that_is_no_pair_is_named(tmp_path):
    root = camvid_set(tmp_path, 0, line="train/000000.png trainannot/000000.png\nonly_one.png\n")
    with pytest.raises(ValueError, match=r"train\.txt has the line 'only_one\.png': expected a picture and its mask"):
        open_layout("camvid", root)


def test_a_value_without_class_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"000000\.png holds the values 30"):
        open_layout("camvid", camvid_set(tmp_path, 30)).sample(0)


@pytest.mark.parametrize(("split", "count"), [("train", 35), ("val", 30), ("test", 10)])
def test_real_splits_have_the_pictures_of_their_readme(shared_data, split, count):
    source = open_layout("camvid", shared_data / "CamVid", split)
    samples = list(source)
    assert len(samples) == source.num_samples == count
    assert {sample.annotation.size for sample in samples} == {(360, 480)}
    assert all(sample.annotation.void[0] for sample in samples)


def test_real_pictures_show_all_11_classes(shared_data):
    shown = {
        segment.category_id
        for sample in open_layout("camvid", shared_data / "CamVid", "val")
        for segment in sample.annotation.segments
    }
    assert shown == set(range(11))
