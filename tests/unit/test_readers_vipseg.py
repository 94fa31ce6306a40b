"""VIPSeg, as 16-bit PNGs and as its converter writes it, and VSPW."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import SampleError, detect_layouts, open_layout
from omg_transformers.data.regions import region_area
from omg_transformers.labels import LabelSpace, builtin_label_space

SIZE = (8, 12)
VIPSEG = builtin_label_space("vipseg")
# In panomasks: void, wall (stuff, category 0), two persons (thing, category 60).
FRAME = np.zeros(SIZE, np.uint16)
FRAME[:, 4:] = 1
FRAME[2:4, 4:6] = 6101
FRAME[5:7, 8:10] = 6103


def write_frames(root, pictures, masks, name, frames):
    for folder in (root / pictures / name, root / masks / name):
        folder.mkdir(parents=True)
    for number, ids in enumerate(frames):
        Image.new("RGB", SIZE[::-1]).save(root / pictures / name / f"{number:08d}.jpg")
        Image.fromarray(ids).save(root / masks / name / f"{number:08d}.png")


def raw_set(root, frames, name="v"):
    write_frames(root, "imgs", "panomasks", name, frames)
    (root / "val.txt").write_text(f"{name}\n")
    return root


def described(annotation, space=VIPSEG):
    return [
        (space.names[segment.category_id], segment.track_id, [region_area(rle) for rle in segment.masks])
        for segment in annotation.segments
    ]


def test_values_are_stuff_things_and_void(tmp_path):
    second = FRAME.copy()
    second[second == 6103] = 0
    annotation = open_layout("vipseg", raw_set(tmp_path, [FRAME, second])).sample(0).annotation
    assert described(annotation) == [("wall", -1, [56, 56]), ("person", 6101, [4, 4]), ("person", 6103, [4, 0])]
    assert [region_area(rle) for rle in annotation.void] == [32, 36]


def test_stuff_of_one_class_is_one_segment_in_a_coarser_space(tmp_path):
    frame = FRAME.copy()
    frame[:, 10:] = 2  # ceiling
    others = [label.name for label in VIPSEG.classes if label.name not in ("person", "wall", "ceiling")]
    space = LabelSpace.from_names(["person", "room|wall|ceiling", *others], things=["person"])
    annotation = open_layout("vipseg", raw_set(tmp_path, [frame]), label_space=space).sample(0).annotation
    assert described(annotation, space)[0] == ("room", -1, [56])


def test_classes_that_the_wanted_space_lacks_are_listed(tmp_path):
    with pytest.raises(ValueError, match="123 classes have no class in the label space 'custom'"):
        open_layout("vipseg", raw_set(tmp_path, [FRAME]), label_space=LabelSpace.from_names(["person"]))


def test_a_value_of_no_category_is_refused(tmp_path):
    frame = FRAME.copy()
    frame[0, 0] = 30_000
    with pytest.raises(
        SampleError, match=r"00000000\.png holds the values 30000, whose categories are not in the list"
    ):
        open_layout("vipseg", raw_set(tmp_path, [frame])).sample(0)


def test_a_category_file_of_ones_own_names_the_classes(tmp_path):
    raw_set(tmp_path, [np.where(FRAME == 1, 1, 0).astype(np.uint16)])
    rows = [{"id": 0, "name": "water", "isthing": 0}, {"id": 1, "name": "boat", "isthing": 1}]
    (tmp_path / "panoVIPSeg_categories.json").write_text(json.dumps(rows))
    source = open_layout("vipseg", tmp_path)
    assert source.label_space.names == ("water", "boat")
    assert described(source.sample(0).annotation, source.label_space) == [("water", -1, [56])]


def test_a_broken_category_file_is_named(tmp_path):
    raw_set(tmp_path, [FRAME])
    (tmp_path / "panoVIPSeg_categories.json").write_text('[{"id": 0,')
    with pytest.raises(ValueError, match=r"panoVIPSeg_categories\.json is not valid JSON"):
        open_layout("vipseg", tmp_path)


def test_without_a_list_all_videos_are_the_split_all(tmp_path):
    write_frames(tmp_path, "images", "panomasks", "v", [FRAME])
    (tmp_path / "README.txt").write_text("about this data\n")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, detection.splits) == ("vipseg", ("all",))
    assert open_layout("vipseg", tmp_path).num_samples == 1


def colored_set(root, infos, frames=2):
    """What VIPSeg's converter writes: id 1 is wall, 300 a person."""
    ids = np.zeros(SIZE, np.int32)
    ids[:, 4:], ids[2:4, 4:6] = 1, 300
    colors = np.stack([ids & 255, ids >> 8, ids * 0], 2).astype(np.uint8)
    write_frames(root, "images", "panomasksRGB", "v", [colors] * frames)
    rows = [
        {"image_id": f"{number:08d}", "file_name": f"{number:08d}.png", "segments_info": infos[number]}
        for number in range(len(infos))
    ]
    categories = [{"id": row.dataset_id, "name": row.name, "isthing": int(row.is_thing)} for row in VIPSEG.classes]
    content = {"annotations": [{"video_id": "v", "annotations": rows}], "categories": categories}
    (root / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(content))
    return root


INFOS = [{"id": 1, "category_id": 0}, {"id": 300, "category_id": 60}]


def test_the_form_of_the_converter_gives_the_same(tmp_path):
    source = open_layout("vipseg", colored_set(tmp_path, [INFOS, INFOS]))
    assert source.label_space is VIPSEG
    assert described(source.sample(0).annotation) == [("wall", -1, [60, 60]), ("person", 300, [4, 4])]


def test_the_converter_marks_crowds(tmp_path):
    crowd = [INFOS[0], {**INFOS[1], "iscrowd": 1}]
    annotation = open_layout("vipseg", colored_set(tmp_path, [crowd, crowd])).sample(0).annotation
    assert [segment.is_crowd for segment in annotation.segments] == [False, True]


def test_frames_that_the_json_does_not_list_are_void(tmp_path):
    annotation = open_layout("vipseg", colored_set(tmp_path, [INFOS])).sample(0).annotation
    assert [region_area(rle) for rle in annotation.void] == [32, SIZE[0] * SIZE[1]]


def test_listed_frames_without_png_are_named(tmp_path):
    source = open_layout("vipseg", colored_set(tmp_path, [INFOS] * 3))
    with pytest.raises(SampleError, match="lacks PNGs of 1 listed frames or their pictures: 00000002"):
        source.sample(0)


def test_an_id_that_the_json_does_not_list_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"00000000\.png holds the ids 300, which panoptic_gt_VIPSeg_val\.json"):
        open_layout("vipseg", colored_set(tmp_path, [INFOS[:1]] * 2)).sample(0)


def test_an_id_that_changes_its_class_is_refused(tmp_path):
    other = [INFOS[0], {"id": 300, "category_id": 48}]
    with pytest.raises(SampleError, match="id 300 of the video v changes its class"):
        open_layout("vipseg", colored_set(tmp_path, [INFOS, other])).sample(0)


def test_a_category_that_is_not_listed_is_refused(tmp_path):
    other = [INFOS[0], {"id": 300, "category_id": 900}]
    with pytest.raises(SampleError, match=r"v/00000000\.png: `categories` does not list 900"):
        open_layout("vipseg", colored_set(tmp_path, [other] * 2)).sample(0)


def test_a_segment_without_id_is_an_error_of_its_video(tmp_path):
    with pytest.raises(SampleError, match=r"v/00000000\.png: segment number 0 has no id: expected a whole number"):
        open_layout("vipseg", colored_set(tmp_path, [[{"category_id": 0}]] * 2)).sample(0)


def test_the_real_clip_has_the_segments_of_its_readme(shared_data):
    source = open_layout("vipseg", shared_data / "VIPSeg_from_camvid")
    assert source.num_samples == 1 and source.label_space is VIPSEG
    sample = source.sample(0)
    assert len(sample.frames) == sample.annotation.num_frames == 30
    assert all(sample.annotation.void)
    names = Counter(VIPSEG.names[segment.category_id] for segment in sample.annotation.segments)
    things = {name: count for name, count in names.items() if VIPSEG.is_thing[VIPSEG.index(name)]}
    assert things == {"car": 3, "person": 15}
    assert len(names) - len(things) == 7 and len(sample.annotation.segments) == 25
    assert sample.tasks == ("video_instance", "video_object", "video_panoptic", "video_semantic")


def vspw_set(root, frames, names=None):
    for number, ids in enumerate(frames):
        for kind, suffix in (("origin", "jpg"), ("mask", "png")):
            (root / "data" / "v" / kind).mkdir(parents=True, exist_ok=True)
            picture = Image.new("RGB", SIZE[::-1]) if kind == "origin" else Image.fromarray(ids)
            picture.save(root / "data" / "v" / kind / f"{number:08d}.{suffix}")
    (root / "train.txt").write_text("v\n")
    if names is not None:
        (root / "label_num_dic_final.json").write_text(json.dumps(names))
    return root


def classes(*values):
    ids = np.zeros(SIZE, np.uint8)
    for place, value in enumerate(values):
        ids[place] = value
    return ids


def test_values_of_vspw_are_classes_from_1_on(tmp_path):
    source = open_layout("vspw", vspw_set(tmp_path, [classes(61, 1, 255), classes(1, 1, 254)]))
    annotation = source.sample(0).annotation
    assert source.label_space is VIPSEG
    assert described(annotation) == [("wall", -1, [12, 24]), ("person", 61, [12, 0])]
    assert [region_area(rle) for rle in annotation.void] == [72, 72]


def test_vspw_tells_no_objects(tmp_path):
    source = open_layout("vspw", vspw_set(tmp_path, [classes(61)]))
    assert source.tasks == ("video_semantic",)


def test_the_name_file_of_vspw_is_that_of_vipseg(tmp_path):
    names = {"others": "0", **{label.dataset_name or label.name: str(label.dataset_id + 1) for label in VIPSEG.classes}}
    assert open_layout("vspw", vspw_set(tmp_path, [classes(1)], names)).label_space is VIPSEG


def test_other_names_make_a_label_space_of_their_own(tmp_path):
    source = open_layout("vspw", vspw_set(tmp_path, [classes(2)], {"others": "0", "moss": "1", "robot": "2"}))
    assert source.label_space.names == ("moss", "robot")
    assert described(source.sample(0).annotation, source.label_space)[0][0] == "robot"


def test_a_value_without_class_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"00000000\.png holds the values 200, .*expected 1 to 124"):
        open_layout("vspw", vspw_set(tmp_path, [classes(200)])).sample(0)


def test_a_name_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"label_num_dic_final\.json: expected the number of each class by its name"):
        open_layout("vspw", vspw_set(tmp_path, [classes(1)], ["wall"]))


def test_vspw_is_detected(tmp_path):
    found = detect_layouts(vspw_set(tmp_path, [classes(1)]))
    assert [(detection.layout.name, detection.splits) for detection in found] == [("vspw", ("train",))]
