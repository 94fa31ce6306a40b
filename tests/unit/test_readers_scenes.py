"""ADE20K, Cityscapes and VOC: maps of classes and objects."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import SampleError, detect_layouts, open_layout
from omg_transformers.data.readers.ade20k import read_ade20k, read_ade20k_full
from omg_transformers.data.readers.cityscapes import read_cityscapes, read_cityscapes_panoptic
from omg_transformers.data.readers.voc import read_voc
from omg_transformers.data.regions import decode_region, region_area
from omg_transformers.labels import LabelSpace

SIZE = (6, 10)


def save(path, values, dtype=np.uint8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, dtype)).save(path)


def picture(path, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 90, 90)).save(path)


def halves(left, right):
    values = np.full(SIZE, left)
    values[:, 5:] = right
    return values


def found(sample):
    """(class name, area, crowd) of every segment."""
    names = sample.label_space.names
    return [(names[s.category_id], region_area(s.masks[0]), s.is_crowd) for s in sample.annotation.segments]


# -- ADE20K


def ade_folder(root, values=None):
    picture(root / "images" / "validation" / "ADE_val_1.jpg")
    save(root / "annotations" / "validation" / "ADE_val_1.png", halves(1, 0) if values is None else values)
    return root


def test_ade20k_has_classes_and_void(tmp_path):
    sample = open_layout("ade20k", ade_folder(tmp_path)).sample(0)
    assert found(sample) == [("wall", 30, False)]
    assert region_area(sample.annotation.void[0]) == 30
    assert sample.tasks == ("interactive", "semantic")


def test_ade20k_refuses_a_value_above_its_classes(tmp_path):
    with pytest.raises(SampleError, match=r"ADE_val_1\.png holds the values 151, which stand for no class"):
        read_ade20k(ade_folder(tmp_path, halves(1, 151)), "validation").sample(0)


def test_ade20k_names_a_picture_without_a_map(tmp_path):
    picture(ade_folder(tmp_path) / "images" / "validation" / "ADE_val_2.jpg")
    with pytest.raises(SampleError, match=r"annotations/validation/ADE_val_2\.png does not exist"):
        read_ade20k(tmp_path, "validation").sample(1)


def test_ade20k_names_a_map_without_a_picture(tmp_path):
    (ade_folder(tmp_path) / "images" / "validation" / "ADE_val_1.jpg").unlink()
    with pytest.raises(SampleError, match=r"images/validation/ADE_val_1\.jpg .*does not exist"):
        read_ade20k(tmp_path, "validation").sample(0)


def test_ade20k_names_a_map_of_another_size(tmp_path):
    with pytest.raises(SampleError, match=r"ADE_val_1\.png is 3 high and 10 wide, its picture .* 6 and 10"):
        read_ade20k(ade_folder(tmp_path, halves(1, 2)[:3]), "validation").sample(0)


def test_ade20k_names_a_missing_split(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'train'.*ade20k.*validation"):
        open_layout("ade20k", ade_folder(tmp_path), "train")


def test_ade20k_lists_classes_that_a_label_space_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"149 classes have no class in the label space 'custom'.*MappedSource"):
        read_ade20k(ade_folder(tmp_path), "validation", label_space=LabelSpace.from_names(["wall"]))


def test_a_source_can_be_sent_to_workers(tmp_path):
    source = read_ade20k(ade_folder(tmp_path), "validation")
    assert pickle.loads(pickle.dumps(source)).sample(0).annotation == source.sample(0).annotation


def full_folder(root, objects, colors):
    place = root / "images" / "ADE" / "training" / "street"
    picture(place / "ADE_1.jpg")
    save(place / "ADE_1_seg.png", colors)
    (place / "ADE_1.json").write_text(json.dumps({"annotation": {"object": objects}}))
    return root


def two_cars_and_sky():
    """Car is class 401 = 10 * 1 + 145, sky 2420 = 90 / 10 * 256 + 116; the last row has no class."""
    colors = np.zeros((*SIZE, 3))
    colors[:2] = (90, 116, 85)
    colors[2:5, :5] = (10, 145, 170)
    colors[2:5, 5:] = (10, 145, 255)
    return colors


CAR = {"name": "car, auto", "name_ndx": 401, "parts": {"part_level": 0}}
SKY = {"name": "sky", "name_ndx": 2420}
DOOR = {"name": "door", "name_ndx": 774, "parts": {"part_level": 1}}


def test_full_ade20k_tells_objects_apart(tmp_path):
    root = full_folder(tmp_path, [CAR, CAR, SKY, DOOR], two_cars_and_sky())
    sample = open_layout("ade20k_full", root).sample(0)
    assert sorted(found(sample)) == [("car", 15, False), ("car", 15, False), ("sky", 20, False)]
    assert region_area(sample.annotation.void[0]) == 10
    assert sample.label_space.prompts == (("car", "auto"), ("sky",))


def test_full_ade20k_takes_stuff_from_the_known_names(tmp_path):
    source = read_ade20k_full(full_folder(tmp_path, [CAR, SKY], two_cars_and_sky()), "training")
    assert source.label_space.is_thing == (True, False)


def test_full_ade20k_maps_names_into_a_label_space(tmp_path):
    root = full_folder(tmp_path, [CAR, SKY], two_cars_and_sky())
    space = LabelSpace.from_names(["sky", "auto"])
    sample = read_ade20k_full(root, "training", label_space=space).sample(0)
    assert {name for name, _, _ in found(sample)} == {"sky", "auto"}


def test_full_ade20k_names_a_class_that_its_json_lacks(tmp_path):
    root = full_folder(tmp_path, [CAR], two_cars_and_sky())
    with pytest.raises(SampleError, match=r"ADE_1_seg\.png holds class 2420"):
        read_ade20k_full(root, "training").sample(0)


def test_a_bad_json_of_full_ade20k_costs_only_its_sample(tmp_path):
    root = full_folder(tmp_path, [CAR, SKY], two_cars_and_sky())
    place = root / "images" / "ADE" / "training" / "street"
    for ending in (".jpg", "_seg.png"):
        (place / f"ADE_2{ending}").write_bytes((place / f"ADE_1{ending}").read_bytes())
    (place / "ADE_2.json").write_text('{"annotation": ')
    source = read_ade20k_full(root, "training", on_error="skip")
    assert [sample.sample_id for sample in source] == ["street/ADE_1"]
    assert "ADE_2.json is not valid JSON" in source.skipped[0]


def test_names_of_full_ade20k_may_be_in_latin_1(tmp_path):
    root = full_folder(tmp_path, [CAR, SKY], two_cars_and_sky())
    path = root / "images" / "ADE" / "training" / "street" / "ADE_1.json"
    path.write_bytes(path.read_bytes().replace(b'"sky"', '"sky", "raw_name": "café"'.encode("latin-1")))
    assert len(read_ade20k_full(root, "training").sample(0).annotation.segments) == 3


def test_real_scene_parsing_is_read(shared_data):
    source = open_layout("ade20k", shared_data / "ade20k" / "ADEChallengeData2016")
    segments = [segment for sample in source for segment in sample.annotation.segments]
    assert (source.num_samples, len(source.label_space), len(segments)) == (2, 150, 19)


def test_real_full_ade20k_is_read(shared_data):
    source = open_layout("ade20k_full", shared_data / "ade20k" / "ADE20K_2021_17_01")
    folder = shared_data / "ade20k" / "ADE20K_2021_17_01" / "images" / "ADE" / "training" / "urban" / "street"
    objects = [one for path in folder.glob("*.json") for one in json.loads(path.read_text())["annotation"]["object"]]
    things = {label.dataset_id for label in source.label_space.classes if label.is_thing}
    expected = [one for one in objects if one["name_ndx"] in things and one["parts"]["part_level"] == 0]
    segments = [segment for sample in source for segment in sample.annotation.segments]
    assert (source.num_samples, len(objects)) == (2, 107)
    assert sum(source.label_space.is_thing[s.category_id] for s in segments) == len(expected) == 60


# -- Cityscapes


def cityscapes_folder(root, values, ending="instanceIds", dtype=np.uint16):
    picture(root / "leftImg8bit" / "val" / "ulm" / "ulm_000001_000002_leftImg8bit.png")
    save(root / "gtFine" / "val" / "ulm" / f"ulm_000001_000002_gtFine_{ending}.png", values, dtype)
    return root


def test_cityscapes_has_objects_groups_stuff_and_void(tmp_path):
    values = np.full(SIZE, 7)
    values[0], values[1], values[2, :4], values[3] = 26001, 26002, 26, 4
    sample = open_layout("cityscapes", cityscapes_folder(tmp_path, values)).sample(0)
    assert sorted(found(sample)) == [("car", 4, True), ("car", 10, False), ("car", 10, False), ("road", 26, False)]
    assert region_area(sample.annotation.void[0]) == 10
    assert sample.sample_id == "ulm/ulm_000001_000002"
    assert "panoptic" in sample.tasks


def test_objects_of_a_class_outside_the_benchmark_are_void(tmp_path):
    sample = read_cityscapes(cityscapes_folder(tmp_path, halves(29003, 65535)), "val").sample(0)
    assert found(sample) == [] and region_area(sample.annotation.void[0]) == 60


def test_cityscapes_without_instances_serves_semantic_heads_only(tmp_path):
    source = read_cityscapes(cityscapes_folder(tmp_path, halves(26, 7), "labelIds", np.uint8), "val")
    assert source.tasks == ("interactive", "semantic")
    assert found(source.sample(0)) == [("road", 30, False), ("car", 30, False)]


def test_cityscapes_refuses_an_unknown_label(tmp_path):
    with pytest.raises(SampleError, match=r"instanceIds\.png holds the values 77"):
        read_cityscapes(cityscapes_folder(tmp_path, halves(77, 7)), "val").sample(0)


def test_cityscapes_without_maps_says_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match=r"gtFine/test holds neither \*_gtFine_instanceIds\.png nor"):
        read_cityscapes(cityscapes_folder(tmp_path, halves(7, 8)), "test")


def panoptic_folder(root):
    picture(root / "leftImg8bit" / "val" / "ulm" / "ulm_1_2_leftImg8bit.png")
    ids = halves(26001, 7)
    colors = np.stack([ids % 256, ids // 256, 0 * ids], -1)
    save(root / "gtFine" / "cityscapes_panoptic_val" / "ulm_1_2_gtFine_panoptic.png", colors)
    infos = [{"id": 26001, "category_id": 26, "iscrowd": 0}, {"id": 7, "category_id": 7, "iscrowd": 0}]
    record = {"file_name": "ulm_1_2_gtFine_panoptic.png", "image_id": "ulm_1_2", "segments_info": infos}
    (root / "gtFine" / "cityscapes_panoptic_val.json").write_text(json.dumps({"annotations": [record]}))
    return root


def test_panoptic_cityscapes_finds_pictures_in_the_folder_of_their_city(tmp_path):
    assert [one.layout.name for one in detect_layouts(panoptic_folder(tmp_path))] == ["cityscapes_panoptic"]
    assert found(open_layout("cityscapes_panoptic", tmp_path).sample(0)) == [("car", 30, False), ("road", 30, False)]


def test_panoptic_cityscapes_names_a_missing_picture(tmp_path):
    (panoptic_folder(tmp_path) / "leftImg8bit" / "val" / "ulm" / "ulm_1_2_leftImg8bit.png").unlink()
    with pytest.raises(SampleError, match=r"ulm/ulm_1_2_leftImg8bit\.png does not exist"):
        read_cityscapes_panoptic(tmp_path, "val").sample(0)


def test_the_real_sample_in_train_ids_is_read(shared_data):
    source = open_layout("cityscapes_panoptic", shared_data / "cityscapes_format_sample")
    (sample,) = source
    infos = json.loads(source.json_path.read_text())["annotations"][0]["segments_info"]
    areas = {segment.track_id: region_area(segment.masks[0]) for segment in sample.annotation.segments}
    assert areas == {info["id"]: info["area"] for info in infos} and len(areas) == 10
    assert {name for name, _, _ in found(sample)} == {"road", "building", "sky", "vegetation", "car"}


# -- VOC


def voc_folder(root, classes, objects=None, listed=None):
    picture(root / "JPEGImages" / "a.jpg")
    picture(root / "JPEGImages" / "unlabelled.jpg")
    save(root / "SegmentationClass" / "a.png", classes)
    if objects is not None:
        save(root / "SegmentationObject" / "a.png", objects)
    if listed is not None:
        (root / "ImageSets" / "Segmentation").mkdir(parents=True)
        (root / "ImageSets" / "Segmentation" / "train.txt").write_text(listed)
    return root


def two_cats():
    """Two cats (class 8), a border of void, background elsewhere."""
    classes, objects = np.zeros(SIZE), np.zeros(SIZE)
    classes[:2], objects[:2] = 8, 1
    classes[3:5], objects[3:5] = 8, 2
    classes[2], objects[2] = 255, 255
    return classes, objects


def test_voc_has_objects_void_and_background(tmp_path):
    sample = open_layout("voc", voc_folder(tmp_path, *two_cats())).sample(0)
    assert found(sample) == [("background", 10, False), ("cat", 20, False), ("cat", 20, False)]
    assert region_area(sample.annotation.void[0]) == 10


def test_voc_without_background_leaves_its_pixels_out(tmp_path):
    source = read_voc(voc_folder(tmp_path, *two_cats()), background=False)
    annotation = source.sample(0).annotation
    assert (len(source.label_space), len(annotation.segments), region_area(annotation.void[0])) == (20, 2, 10)
    assert source.tasks == ("instance", "interactive")


def test_voc_reads_its_lists(tmp_path):
    voc_folder(tmp_path / "VOCdevkit" / "VOC2012", *two_cats(), listed="a\n")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, detection.splits) == ("voc", ("VOC2012/train",))
    assert [sample.sample_id for sample in open_layout("voc", tmp_path)] == ["a"]


def test_voc_class_without_an_object_is_a_crowd(tmp_path):
    classes, objects = two_cats()
    objects[3:5] = 0
    sample = read_voc(voc_folder(tmp_path, classes, objects), background=False).sample(0)
    assert found(sample) == [("cat", 20, True), ("cat", 20, False)]


def test_voc_without_objects_has_classes(tmp_path):
    source = read_voc(voc_folder(tmp_path, two_cats()[0]))
    assert found(source.sample(0)) == [("background", 10, False), ("cat", 40, False)]
    assert source.tasks == ("interactive", "semantic")


def test_voc_names_of_its_own_are_read(tmp_path):
    (voc_folder(tmp_path, halves(0, 1)) / "class_names.txt").write_text("_background_\nyeti\n")
    assert read_voc(tmp_path).label_space.names == ("background", "yeti")


def test_voc_names_a_map_of_a_listed_picture_that_is_missing(tmp_path):
    voc_folder(tmp_path, *two_cats(), listed="a\nunlabelled\n")
    with pytest.raises(SampleError, match=r"SegmentationClass/unlabelled\.png does not exist"):
        read_voc(tmp_path, "train").sample(1)


def test_voc_names_objects_of_another_size(tmp_path):
    classes, objects = two_cats()
    with pytest.raises(SampleError, match=r"SegmentationObject/a\.png is 4 high and 10 wide"):
        read_voc(voc_folder(tmp_path, classes, objects[:4])).sample(0)


def test_voc_names_a_missing_split(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'train' \(found all\)"):
        read_voc(voc_folder(tmp_path, *two_cats()), "train")


def test_voc_in_a_label_space_without_background_leaves_it_out(tmp_path):
    (voc_folder(tmp_path, *two_cats()) / "class_names.txt").write_text("_background_\n" + "cat|kitty\n" * 8 + "\n")
    space = LabelSpace.from_names(["dog", "kitty"])
    sample = read_voc(tmp_path, label_space=space).sample(0)
    assert found(sample) == [("kitty", 20, False), ("kitty", 20, False)]


def test_real_voc_objects_are_read(shared_data):
    source = open_layout("voc", shared_data / "voc_labelme" / "VOC", background=False)
    segments = [segment for sample in source for segment in sample.annotation.segments]
    assert (source.num_samples, len(source.label_space), len(segments)) == (3, 20, 12)


def test_real_voc_and_its_coco_form_agree(shared_data):
    masks = open_layout("voc", shared_data / "voc_labelme" / "VOC", background=False)
    outlines = open_layout("coco_instances", shared_data / "voc_labelme" / "VOC")
    by_stem = {sample.frames[0].stem: sample.annotation for sample in outlines}
    for sample in masks:
        for segment in sample.annotation.segments:
            mask = decode_region(segment.masks[0], sample.annotation.size)
            others = [decode_region(s.masks[0], sample.annotation.size) for s in by_stem[sample.sample_id].segments]
            assert max((mask & other).sum() / (mask | other).sum() for other in others) > 0.8


def test_the_real_video_of_labelme_is_read(shared_data):
    source = open_layout("voc", shared_data / "voc_labelme" / "video")
    assert (source.num_samples, source.label_space.names) == (5, ("background", "car", "track"))
    assert all(len(sample.annotation.segments) == 3 for sample in source)
