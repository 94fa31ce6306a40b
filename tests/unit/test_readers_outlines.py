"""SA-1B, YOLO and labelme: outlines per picture."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omg_transformers.data import SampleError, detect_layouts, open_layout
from omg_transformers.data.readers.labelme import read_labelme
from omg_transformers.data.readers.sa1b import read_sa1b
from omg_transformers.data.readers.yolo_seg import read_yolo_seg
from omg_transformers.data.regions import decode_region, region_area
from omg_transformers.labels import LabelSpace

HEIGHT, WIDTH = 10, 20


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


def box_mask(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return mask


def masks(sample):
    return [decode_region(segment.masks[0], sample.annotation.size) for segment in sample.annotation.segments]


# -- SA-1B


def sa1b_folder(root, **changes):
    picture(root / "sa_1.jpg")
    rles = [coco_mask.encode(box_mask(2, 1, 12, 9)), coco_mask.encode(box_mask(4, 3, 8, 6))]
    found = [
        {"id": number, "segmentation": {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}}
        for number, rle in enumerate(rles, 71)
    ]
    stated = {"image_id": 1, "file_name": "sa_1.jpg", "height": HEIGHT, "width": WIDTH}
    (root / "sa_1.json").write_text(json.dumps({"image": {**stated, **changes}, "annotations": found}))
    return root


def test_sa1b_masks_overlap_and_have_no_class(tmp_path):
    sample = open_layout("sa1b", sa1b_folder(tmp_path)).sample(0)
    assert [mask.sum() for mask in masks(sample)] == [80, 12]
    assert [(s.category_id, s.track_id) for s in sample.annotation.segments] == [(-1, 71), (-1, 72)]
    assert sample.label_space.is_class_agnostic and sample.tasks == ("interactive",)


def test_sa1b_folders_are_splits(tmp_path):
    (tmp_path / "sa_000020").mkdir()
    sa1b_folder(tmp_path / "sa_000020")
    assert [(one.layout.name, one.splits) for one in detect_layouts(tmp_path)] == [("sa1b", ("sa_000020",))]
    assert open_layout("sa1b", tmp_path).num_samples == 1


def test_sa1b_names_a_picture_of_another_size(tmp_path):
    with pytest.raises(SampleError, match=r"sa_1\.jpg is 10 high and 20 wide.*says 10 and 21"):
        read_sa1b(sa1b_folder(tmp_path, width=21)).sample(0)


def test_sa1b_names_a_missing_picture(tmp_path):
    (sa1b_folder(tmp_path) / "sa_1.jpg").unlink()
    with pytest.raises(SampleError, match=r"sa_1\.jpg .*does not exist"):
        read_sa1b(tmp_path).sample(0)


def test_sa1b_names_a_json_that_was_cut_short(tmp_path):
    path = sa1b_folder(tmp_path) / "sa_1.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(SampleError, match=r"sa_1\.json is not valid JSON"):
        read_sa1b(tmp_path).sample(0)


def test_sa1b_says_what_it_expects_in_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"holds no JSON: expected sa_<number>\.json"):
        read_sa1b(tmp_path)


# -- YOLO


def yolo_folder(root, text="0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5\n", yaml="names: [cat, red_bus]", split="train"):
    picture(root / "images" / split / "a.jpg")
    (root / "labels" / split).mkdir(parents=True, exist_ok=True)
    (root / "labels" / split / "a.txt").write_text(text)
    if yaml is not None:
        (root / "data.yaml").write_text(yaml)
    return root


def test_yolo_polygons_are_shares_of_width_and_height(tmp_path):
    sample = open_layout("yolo_seg", yolo_folder(tmp_path)).sample(0)
    (mask,) = masks(sample)
    assert np.array_equal(mask, box_mask(2, 1, 10, 5).astype(bool))
    assert sample.label_space.names == ("cat", "red bus") and sample.tasks == ("instance", "interactive")


def test_yolo_names_may_be_a_table(tmp_path):
    space = read_yolo_seg(yolo_folder(tmp_path, yaml="names:\n  0: cat\n  3: dog\n"), "train").label_space
    assert (space.names, space.dataset_ids) == (("cat", "dog"), (0, 3))


def test_yolo_folders_of_roboflow_are_found(tmp_path):
    picture(tmp_path / "valid" / "images" / "a.jpg")
    (tmp_path / "valid" / "labels").mkdir()
    (tmp_path / "valid" / "labels" / "a.txt").write_text("1 0 0 1 0 1 1\n")
    (tmp_path / "data.yaml").write_text("names: [cat, dog]")
    assert [(one.layout.name, one.splits) for one in detect_layouts(tmp_path)] == [("yolo_seg", ("valid",))]
    assert open_layout("yolo_seg", tmp_path).sample(0).annotation.segments[0].category_id == 1


def test_boxes_are_not_taken_for_yolo_segmentation(tmp_path):
    assert detect_layouts(yolo_folder(tmp_path, "0 0.5 0.5 0.2 0.2\n")) == []


def test_a_yolo_picture_without_a_text_file_has_no_objects(tmp_path):
    picture(yolo_folder(tmp_path) / "images" / "train" / "b.jpg")
    assert [len(sample.annotation.segments) for sample in read_yolo_seg(tmp_path, "train")] == [1, 0]


def test_yolo_labels_without_a_picture_are_named(tmp_path):
    (yolo_folder(tmp_path) / "images" / "train" / "a.jpg").unlink()
    picture(tmp_path / "images" / "train" / "b.jpg")
    with pytest.raises(SampleError, match=r"images/train/a\.jpg .*does not exist"):
        read_yolo_seg(tmp_path, "train").sample(0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("7 0 0 1 0 1 1", "class 7, which the names do not list"),
        ("0 0.5 0.5 0.2 0.2", "is a box"),
        ("0 0 0 1 0 1", "polygon of 2.5 points"),
        ("0 0 0 1", "polygon of 1.5 points"),
        ("0", "polygon of 0 points"),
        ("0 10 10 20 10 20 20", "reaches 20: expected shares"),
        ("0 1.2 0 1.5 0 1.5 0.5", "outside the picture"),
        ("cat 0 0 1 0 1 1", "expected numbers"),
    ],
)
def test_a_bad_yolo_line_is_named(tmp_path, line, message):
    text = "0 0.1 0.1 0.5 0.1 0.5 0.5\n" + line
    with pytest.raises(SampleError, match=rf"train/a\.txt, line 2 .*{message}"):
        read_yolo_seg(yolo_folder(tmp_path, text), "train").sample(0)


def test_a_byte_order_mark_is_no_part_of_a_yolo_file(tmp_path):
    root = yolo_folder(tmp_path, text="\ufeff0 0.1 0.1 0.5 0.1 0.5 0.5\r\n", yaml=None)
    (root / "classes.txt").write_text("\ufeffcat\r\ndog\r\n", encoding="utf-8")
    (detection,) = detect_layouts(root)
    source = open_layout(detection.layout.name, root)
    assert source.label_space.names == ("cat", "dog") and len(source.sample(0).annotation.segments) == 1


def test_yolo_folders_below_a_split_belong_to_it(tmp_path):
    root = yolo_folder(yolo_folder(tmp_path, split="train/one"), split="train/two")
    (detection,) = detect_layouts(root)
    assert detection.splits == ("train",)
    assert [sample.sample_id for sample in open_layout("yolo_seg", root)] == ["one/a", "two/a"]


@pytest.mark.parametrize("text", ["", "\n", "0 0.5 0.5 0.2 0.2\n0 0.1 0.1 0.5 0.1 0.5 0.5\n"])
def test_a_yolo_split_is_one_whatever_its_first_line_holds(tmp_path, text):
    root = yolo_folder(yolo_folder(tmp_path), text=text, split="val")
    (detection,) = detect_layouts(root)
    assert detection.splits == ("train", "val")


def test_yolo_names_stay_texts_where_yaml_knows_other_things(tmp_path):
    assert read_yolo_seg(yolo_folder(tmp_path, yaml="names: [no, 7]"), "train").label_space.names == ("no", "7")


def test_names_with_commas_are_not_joined_when_they_differ_after_the_comma(tmp_path):
    root = yolo_folder(tmp_path, yaml="names: ['cup, red', 'cup, blue', 'cat, kitty']")
    space = read_yolo_seg(root, "train").label_space
    assert space.names == ("cup, red", "cup, blue", "cat") and space.find("kitty") == 2


@pytest.mark.parametrize("root", [".", "data"])
def test_a_yolo_yaml_may_lie_above_its_folder(tmp_path, root):
    yolo_folder(tmp_path / "data", yaml=None)
    (tmp_path / "my set.yaml").write_text("path: data\ntrain: images/train\nnames: {0: cat}\n")
    (detection,) = detect_layouts(tmp_path / root)
    assert open_layout(detection.layout.name, tmp_path / root).label_space.names == ("cat",)


def test_yolo_without_names_asks_for_them(tmp_path):
    with pytest.raises(ValueError, match=r"names no classes.*data\.yaml"):
        read_yolo_seg(yolo_folder(tmp_path, yaml=None), "train")


def test_yolo_names_may_be_given(tmp_path):
    assert read_yolo_seg(yolo_folder(tmp_path, yaml=None), "train", names=["yeti"]).label_space.names == ("yeti",)


def test_a_yaml_that_is_none_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data\.yaml gives no names"):
        read_yolo_seg(yolo_folder(tmp_path, yaml="names: [cat"), "train")


def test_yolo_names_a_missing_split(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'val': expected images/val"):
        read_yolo_seg(yolo_folder(tmp_path), "val")


# -- labelme


def shape(label, points, kind="polygon", group=None, **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": group, **more}


SQUARE = [[2, 1], [10, 1], [10, 5], [2, 5]]


def labelme_folder(root, *shapes, **changes):
    picture(root / "a.jpg")
    stated = {"imagePath": "a.jpg", "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH, **changes}
    (root / "a.json").write_text(json.dumps({"shapes": list(shapes), **stated}))
    return root


def png(mask):
    buffer = io.BytesIO()
    Image.fromarray(mask * 255).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    "one",
    [
        shape("cat", SQUARE),
        shape("cat", [[10, 5], [2, 1]], "rectangle"),
        shape("cat", [[2, 1], [9, 4]], "mask", mask=png(np.ones((4, 8), np.uint8))),
    ],
)
def test_labelme_shapes_become_masks(tmp_path, one):
    sample = open_layout("labelme", labelme_folder(tmp_path, one)).sample(0)
    (mask,) = masks(sample)
    assert np.array_equal(mask, box_mask(2, 1, 10, 5).astype(bool))
    assert sample.label_space.names == ("cat",) and sample.tasks == ("instance", "interactive")


def test_a_labelme_circle_has_its_centre_and_a_point_of_its_line(tmp_path):
    (mask,) = masks(read_labelme(labelme_folder(tmp_path, shape("cat", [[10, 5], [10, 9]], "circle"))).sample(0))
    assert abs(mask.sum() - np.pi * 16) < 4 and mask[5, 13] and not mask[1, 6]


def test_labelme_shapes_of_one_group_are_one_object(tmp_path):
    parts = [shape("cat", [[x, 1], [x + 3, 1], [x + 3, 4], [x, 4]], group=group) for x, group in ((0, 5), (6, 5))]
    alone = [shape("cat", [[x, 6], [x + 3, 6], [x + 3, 9], [x, 9]]) for x in (0, 6)]
    sample = read_labelme(labelme_folder(tmp_path, *parts, *alone)).sample(0)
    assert [mask.sum() for mask in masks(sample)] == [18, 9, 9]


def test_ignored_labelme_shapes_are_void_and_points_are_left_out(tmp_path):
    root = labelme_folder(tmp_path, shape("__ignore__", SQUARE), shape("cat", [[3, 3]], "point"), shape("dog", SQUARE))
    sample = read_labelme(root).sample(0)
    assert len(sample.annotation.segments) == 1
    assert region_area(sample.annotation.void[0]) == 32


def test_labelme_names_come_from_a_file_if_there_is_one(tmp_path):
    (labelme_folder(tmp_path, shape("dog", SQUARE)) / "labels.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    source = read_labelme(tmp_path)
    assert source.label_space.names == ("cat", "dog") and source.sample(0).annotation.segments[0].category_id == 1


def test_labelme_splits_have_the_same_classes(tmp_path):
    for split, label in (("train", "dog"), ("val", "cat")):
        (tmp_path / split).mkdir()
        labelme_folder(tmp_path / split, shape(label, SQUARE))
    assert read_labelme(tmp_path, "train").label_space == read_labelme(tmp_path, "val").label_space
    assert read_labelme(tmp_path, "train").label_space.names == ("cat", "dog")


def test_labels_of_points_and_lines_alone_are_no_classes(tmp_path):
    root = labelme_folder(tmp_path, shape("cat", SQUARE), shape("nose", [[3, 3]], "point"))
    sample = read_labelme(root).sample(0)
    assert sample.label_space.names == ("cat",) and len(sample.annotation.segments) == 1


def test_labelme_pictures_without_a_file_are_told(tmp_path):
    root = labelme_folder(tmp_path, shape("cat", SQUARE), imagePath="../elsewhere/A.JPG")
    (root / "a.jpg").rename(root / "A.JPG")
    picture(root / "b.png")
    assert read_labelme(root).pictures_not_listed() == ["b.png"]


def test_labelme_pictures_may_be_inside_the_file(tmp_path):
    inside = base64.b64encode((labelme_folder(tmp_path) / "a.jpg").read_bytes()).decode()
    labelme_folder(tmp_path, shape("cat", SQUARE), imageData=inside)
    (tmp_path / "a.jpg").unlink()
    assert isinstance(read_labelme(tmp_path).sample(0).frames[0], bytes)


@pytest.mark.parametrize("stated", ["C:\\Users\\me\\a.jpg", "/home/me/a.jpg", "..\\pictures\\a.jpg", "renamed.jpg"])
def test_a_labelme_picture_lies_beside_its_file_wherever_it_was_drawn(tmp_path, stated):
    root = labelme_folder(tmp_path, shape("cat", SQUARE), imagePath=stated)
    assert read_labelme(root).sample(0).frames == (root / "a.jpg",)


def test_another_json_beside_labelmes_hides_nothing(tmp_path):
    (labelme_folder(tmp_path, shape("cat", SQUARE)) / "0.json").write_text("{}")
    (detection,) = detect_layouts(tmp_path)
    assert (detection.layout.name, read_labelme(tmp_path).num_samples) == ("labelme", 1)


def test_a_turned_box_of_four_corners_is_a_polygon(tmp_path):
    (mask,) = masks(read_labelme(labelme_folder(tmp_path, shape("cat", SQUARE, "rotation"))).sample(0))
    assert mask.sum() == 32


def test_a_labelme_picture_that_was_drawn_turned_is_told_so(tmp_path):
    root = labelme_folder(tmp_path, shape("cat", SQUARE))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "a.jpg", exif=exif)
    with pytest.raises(SampleError, match=r"says 10 and 20.*EXIF"):
        read_labelme(root).sample(0)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (["cat"], "shape 0 is 'cat': expected an object"),
        ({"0": {}}, "expected a list, one object per shape"),
        ([{**shape("cat", SQUARE), "label": None}], "label=None: expected a text"),
    ],
)
def test_labelme_shapes_that_are_none_cost_only_their_sample(tmp_path, shapes, message):
    root = labelme_folder(tmp_path, shape("cat", SQUARE))
    (root / "b.json").write_text(json.dumps({"imagePath": "a.jpg", "shapes": shapes}))
    source = read_labelme(root, on_error="skip")
    assert [sample.sample_id for sample in source] == ["a"]
    assert re.search(rf"b\.json.*{message}", source.skipped[0])


def test_labelme_labels_find_their_class_by_synonym(tmp_path):
    space = LabelSpace.from_names(["dog", "feline|cat"])
    sample = read_labelme(labelme_folder(tmp_path, shape("cat", SQUARE)), label_space=space).sample(0)
    assert sample.annotation.segments[0].category_id == 1


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (shape("yeti", SQUARE), r"label 'yeti', which is not among \['cat'\]"),
        (shape("cat", [[1, 1], [2, 2]]), "polygon of 2 points"),
        (shape("cat", [[30, 1], [40, 1], [40, 5]]), "outside the picture"),
        (shape("cat", SQUARE, "ellipsoid"), "'ellipsoid' of 4 points"),
        (shape("cat", [[2, 1], [9, 4]], "mask", mask="?"), "not base64"),
        (shape("cat", None), "no points"),
    ],
)
def test_a_bad_labelme_shape_is_named(tmp_path, one, message):
    source = read_labelme(labelme_folder(tmp_path, one), names=["cat"])
    with pytest.raises(SampleError, match=rf"a\.json.*{message}"):
        source.sample(0)


def test_a_labelme_picture_of_another_size_is_named(tmp_path):
    with pytest.raises(SampleError, match=r"a\.json is 10 high and 20 wide, the file says 11 and 20"):
        read_labelme(labelme_folder(tmp_path, shape("cat", SQUARE), imageHeight=11)).sample(0)


def test_a_missing_labelme_picture_is_named(tmp_path):
    (labelme_folder(tmp_path, shape("cat", SQUARE)) / "a.jpg").unlink()
    with pytest.raises(SampleError, match=r"a\.jpg .*does not exist"):
        read_labelme(tmp_path).sample(0)


def test_a_labelme_json_that_was_cut_short_costs_only_its_sample(tmp_path):
    (labelme_folder(tmp_path, shape("cat", SQUARE)) / "b.json").write_text('{"shapes": [')
    source = read_labelme(tmp_path, on_error="skip")
    assert [sample.sample_id for sample in source] == ["a"] and "b.json is not valid JSON" in source.skipped[0]


def test_a_folder_without_labelme_says_what_it_expects(tmp_path):
    with pytest.raises(ValueError, match="holds no labelme JSON"):
        read_labelme(tmp_path)
