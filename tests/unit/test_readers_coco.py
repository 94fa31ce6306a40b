"""COCO instance files of any tool, and LVIS."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omg_transformers.data import SampleError, detect_layouts, open_layout
from omg_transformers.data.readers.coco_instances import read_coco_instances
from omg_transformers.data.readers.lvis import read_lvis
from omg_transformers.data.regions import decode_region, region_area
from omg_transformers.labels import LabelSpace

HEIGHT, WIDTH = 8, 12
SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]
CATEGORIES = [{"id": 3, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "red_bus"}]


def content(*annotations, num_pictures=1, **more):
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH}
        for number in range(1, num_pictures + 1)
    ]
    found = [
        {"id": number, "image_id": 1, "category_id": 3, "iscrowd": 0, **one}
        for number, one in enumerate(annotations, 1)
    ]
    return {"images": images, "annotations": found, "categories": CATEGORIES, **more}


def write(root, *annotations, json_path="annotations/instances_tiny.json", pictures="tiny", num_pictures=1, **more):
    (root / pictures).mkdir(parents=True, exist_ok=True)
    for number in range(1, num_pictures + 1):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / pictures / f"{number}.jpg")
    path = root / json_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content(*annotations, num_pictures=num_pictures, **more)))
    return root


def square_mask():
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[1:5, 2:6] = 1
    return mask


def compressed(mask):
    return {"size": [HEIGHT, WIDTH], "counts": coco_mask.encode(mask)["counts"].decode()}


def plain(mask):
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}


def only_segment(root, split="tiny", **options):
    (segment,) = read_coco_instances(root, split, **options).sample(0).annotation.segments
    return segment


@pytest.mark.parametrize("segmentation", [[SQUARE], SQUARE, compressed(square_mask()), plain(square_mask())])
def test_every_kind_of_segmentation_gives_the_same_mask(tmp_path, segmentation):
    segment = only_segment(write(tmp_path, {"segmentation": segmentation}))
    assert np.array_equal(decode_region(segment.masks[0], (HEIGHT, WIDTH)), square_mask().astype(bool))


def test_overlapping_objects_stay_and_nothing_is_void(tmp_path):
    source = read_coco_instances(write(tmp_path, {"segmentation": [SQUARE]}, {"segmentation": [SQUARE]}), "tiny")
    annotation = source.sample(0).annotation
    assert [region_area(segment.masks[0]) for segment in annotation.segments] == [16, 16]
    assert annotation.void == (None,)


def test_a_crowd_keeps_its_flag_and_every_segment_its_id(tmp_path):
    segment = only_segment(write(tmp_path, {"segmentation": plain(square_mask()), "iscrowd": 1, "id": 41}))
    assert (segment.is_crowd, segment.track_id) == (True, 41)


def test_a_picture_without_objects_is_a_sample(tmp_path):
    source = read_coco_instances(write(tmp_path, {"segmentation": [SQUARE]}, num_pictures=2), "tiny")
    assert [len(sample.annotation.segments) for sample in source] == [1, 0]


def test_the_files_categories_make_the_label_space(tmp_path):
    space = read_coco_instances(write(tmp_path), "tiny").label_space
    assert (space.names, space.dataset_ids, space.is_thing) == (("cat", "red bus"), (3, 7), (True, True))


def test_categories_of_one_name_are_one_class(tmp_path):
    twice = [{"id": 0, "name": "cat"}, {"id": 3, "name": "Cat"}]
    source = read_coco_instances(write(tmp_path, {"segmentation": [SQUARE]}, categories=twice), "tiny")
    assert source.label_space.names == ("cat",) and source.sample(0).annotation.segments[0].category_id == 0


def test_a_background_that_nobody_uses_is_no_class(tmp_path):
    with_background = [{"id": 0, "name": "_background_"}, *CATEGORIES]
    assert read_coco_instances(write(tmp_path, categories=with_background), "tiny").label_space.names == (
        "cat",
        "red bus",
    )


def test_a_label_space_needs_only_the_categories_that_are_used(tmp_path):
    space = LabelSpace.from_names(["dog", "animal"])
    segment = only_segment(write(tmp_path, {"segmentation": [SQUARE]}), label_space=space)
    assert segment.category_id == 1


def test_a_used_category_without_a_class_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"instances_tiny\.json.*3 \(cat\)"):
        read_coco_instances(
            write(tmp_path, {"segmentation": [SQUARE]}), "tiny", label_space=LabelSpace.from_names(["dog"])
        )


@pytest.mark.parametrize(
    ("json_path", "pictures", "split"),
    [
        ("annotations/instances_default.json", "images/default", "default"),  # CVAT
        ("annotations/instances_default.json", "images", "default"),
        ("train/_annotations.coco.json", "train", "train"),  # Roboflow
        ("_annotations.coco.json", ".", "all"),
        ("result.json", "images", "result"),  # Label Studio
        ("annotations.json", ".", "annotations"),
        ("train/labels.json", "train/data", "train"),  # FiftyOne
        ("annotations/train.json", "train", "train"),
    ],
)
def test_layouts_of_tools_are_found(tmp_path, json_path, pictures, split):
    write(tmp_path, {"segmentation": [SQUARE]}, json_path=json_path, pictures=pictures)
    assert [(found.layout.name, found.splits) for found in detect_layouts(tmp_path)] == [("coco_instances", (split,))]
    assert len(list(open_layout("coco_instances", tmp_path))) == 1


def test_a_file_of_videos_is_not_taken_for_one_of_pictures(tmp_path):
    path = tmp_path / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"videos": [], "images": [], "annotations": [{"segmentations": []}], "categories": []}))
    assert "coco_instances" not in [found.layout.name for found in detect_layouts(tmp_path)]


def test_json_and_pictures_may_be_named(tmp_path):
    write(tmp_path, {"segmentation": [SQUARE]}, json_path="odd/file.txt", pictures="somewhere/else")
    assert only_segment(tmp_path, "mine", json="odd/file.txt", pictures="somewhere/else").category_id == 0


def test_paths_of_a_server_are_found_by_their_last_part(tmp_path):
    write(tmp_path, {"segmentation": [SQUARE]}, json_path="result.json", pictures="images")
    path = tmp_path / "result.json"
    path.write_text(path.read_text().replace("1.jpg", r"..\\upload\\1.jpg"))
    assert read_coco_instances(tmp_path, "result").sample(0).frames[0].name == "1.jpg"


@pytest.mark.parametrize("name", ["Größe 1.jpg", 'a "b".jpg', "日本/1.jpg"])
def test_names_that_json_escapes_are_found(tmp_path, name):
    root = write(tmp_path, {"segmentation": [SQUARE]}, json_path="export.json", pictures="images")
    (root / "images" / name).parent.mkdir(exist_ok=True)
    (root / "images/1.jpg").rename(root / "images" / name)
    found = json.loads((root / "export.json").read_text())
    found["images"][0]["file_name"] = name
    (root / "export.json").write_text(json.dumps(found))
    assert "\\" in (root / "export.json").read_text()
    (detection,) = detect_layouts(root)
    assert len(open_layout(detection.layout.name, root).sample(0).annotation.segments) == 1


def test_numbers_that_a_tool_wrote_as_texts_are_numbers(tmp_path):
    root = write(tmp_path, {"segmentation": [SQUARE], "category_id": "3", "image_id": "1"})
    path = root / "annotations/instances_tiny.json"
    found = json.loads(path.read_text())
    found["images"][0].update(height=str(HEIGHT), width=str(WIDTH))
    found["categories"][0]["id"] = "3"
    path.write_text(json.dumps(found))
    source = read_coco_instances(root, "tiny")
    assert source.num_samples == 1 and len(source.sample(0).annotation.segments) == 1


def test_ids_of_pictures_may_be_texts(tmp_path):
    root = write(tmp_path, {"segmentation": [SQUARE], "image_id": "0a"})
    path = root / "annotations/instances_tiny.json"
    found = json.loads(path.read_text())
    found["images"][0]["id"] = "0a"
    path.write_text(json.dumps(found))
    assert read_coco_instances(root, "tiny").sample(0).sample_id == "0a"


def test_the_row_that_roboflow_writes_for_the_whole_project_is_no_class(tmp_path):
    categories = [
        {"id": 0, "name": "pets-x1y2", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets-x1y2"},
    ]
    root = write(tmp_path, {"segmentation": [SQUARE], "category_id": 1}, categories=categories)
    assert read_coco_instances(root, "tiny").label_space.names == ("cat",)


def test_a_group_that_annotations_use_is_a_class(tmp_path):
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "pets"},
    ]
    root = write(tmp_path, {"segmentation": [SQUARE], "category_id": 0}, categories=categories)
    assert read_coco_instances(root, "tiny").label_space.names == ("pets", "cat")


def test_opening_decodes_no_mask_and_opens_no_picture(tmp_path):
    write(tmp_path, {"segmentation": {"size": [1, 1], "counts": "broken"}})
    (tmp_path / "tiny" / "1.jpg").write_bytes(b"no picture")
    assert read_coco_instances(tmp_path, "tiny").num_samples == 1


# -- bad input


def test_a_split_without_masks_is_not_detected_but_opens(tmp_path):
    assert detect_layouts(write(tmp_path)) == []
    assert read_coco_instances(tmp_path, "tiny").num_samples == 1


def test_a_missing_split_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"split 'tin' \(found tiny\).*json="):
        read_coco_instances(write(tmp_path), "tin")


def test_a_json_that_was_cut_short_is_named(tmp_path):
    path = write(tmp_path, {"segmentation": [SQUARE]}) / "annotations" / "instances_tiny.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match=r"instances_tiny\.json is not valid JSON"):
        read_coco_instances(tmp_path, "tiny")


def test_pictures_that_are_nowhere_are_asked_for(tmp_path):
    (write(tmp_path) / "tiny" / "1.jpg").unlink()
    with pytest.raises(ValueError, match=r"no picture of .*instances_tiny\.json.*1\.jpg.*pictures="):
        read_coco_instances(tmp_path, "tiny")


def test_a_missing_picture_costs_only_its_sample(tmp_path):
    (write(tmp_path, num_pictures=2) / "tiny" / "2.jpg").unlink()
    source = read_coco_instances(tmp_path, "tiny", on_error="skip")
    assert len(list(source)) == 1 and "2.jpg" in source.skipped[0]


def test_annotations_of_an_unlisted_picture_are_named(tmp_path):
    source = read_coco_instances(write(tmp_path, {"segmentation": [SQUARE], "image_id": 9}), "tiny")
    with pytest.raises(SampleError, match="1 annotations belong to picture 9"):
        list(source)


def test_a_category_that_is_not_listed_is_named(tmp_path):
    with pytest.raises(SampleError, match="annotation 1 of picture 1 has category 99"):
        only_segment(write(tmp_path, {"segmentation": [SQUARE], "category_id": 99}))


def test_a_category_that_is_a_list_costs_only_its_sample(tmp_path):
    source = read_coco_instances(write(tmp_path, {"segmentation": [SQUARE], "category_id": [3]}), "tiny")
    with pytest.raises(SampleError, match=r"has category \[3\], which `categories` does not list"):
        source.sample(0)


def test_a_category_id_listed_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="category id 3 twice"):
        read_coco_instances(write(tmp_path, categories=[*CATEGORIES, CATEGORIES[0]]), "tiny")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": ["1.jpg"]}, r"picture 0 is '1\.jpg': expected an object"),
        ({"images": {"1": {}}}, "expected a list, one object per picture"),
        ({"images": [{"file_name": "1.jpg"}]}, "picture number 0 has no id"),
        ({"annotations": [None]}, "annotation 0 is None: expected an object"),
        ({"annotations": {"1": {}}}, "expected a list, one object per annotation"),
        ({"categories": ["cat"]}, "category 0 is 'cat': expected an object"),
        ({"categories": [{"id": "cat", "name": "cat"}]}, "category id 'cat'.*whole number"),
        ({"categories": [{"id": 1.5, "name": "cat"}]}, r"category id 1\.5.*whole number"),
    ],
)
def test_a_file_whose_lists_hold_other_things_is_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=rf"instances_tiny\.json.*{message}"):
        read_coco_instances(write(tmp_path, **changes), "tiny")


def test_a_picture_id_listed_twice_is_refused(tmp_path):
    path = write(tmp_path) / "annotations" / "instances_tiny.json"
    twice = content(num_pictures=2)
    twice["images"][1]["id"] = 1
    path.write_text(json.dumps(twice))
    with pytest.raises(ValueError, match="picture id twice"):
        read_coco_instances(tmp_path, "tiny")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 1, 5, 5]], "polygon of 2 points: expected at least 3"),
        ([[1, 1, 5, 5, 3, 2, 4]], "polygon of 3.5 points"),
        ([], "no polygon"),
        (None, "segmentation=None"),
        ([[20, 1, 30, 1, 30, 5]], r"outside the picture: x from 20 to 30.*12 wide and 8 high"),
        ([[0, 0, float("inf"), 1, 2, 2]], "polygon with inf"),
        ([["a", 0, 1, 1, 2, 2]], "expected numbers"),
        ({"size": [WIDTH, HEIGHT], "counts": "0"}, r"RLE of size \[12, 8\], expected .*\(8, 12\)"),
        ({"size": [HEIGHT, WIDTH], "counts": [1, 2]}, "do not add up to 8 x 12"),
        ({"size": [HEIGHT, WIDTH], "counts": "0123"}, "broken RLE: counts covers"),
        ({"size": [HEIGHT, WIDTH], "counts": 5}, "counts of type int"),
    ],
)
def test_a_bad_segmentation_is_named(tmp_path, segmentation, message):
    with pytest.raises(SampleError, match=rf"instances_tiny\.json: annotation 1 of picture 1 .*{message}"):
        only_segment(write(tmp_path, {"segmentation": segmentation}))


def test_a_polygon_is_cut_off_at_the_border(tmp_path):
    segment = only_segment(write(tmp_path, {"segmentation": [[-5, -5, 3, -5, 3, 4, -5, 4]]}))
    mask = decode_region(segment.masks[0], (HEIGHT, WIDTH))
    assert mask[:4, :3].all() and mask.sum() == 12


def test_a_sliver_without_a_pixel_is_left_out(tmp_path):
    source = read_coco_instances(write(tmp_path, {"segmentation": [[1, 1, 1.01, 1, 1.01, 1.01]]}), "tiny")
    assert source.sample(0).annotation.segments == ()


def test_a_picture_of_another_size_is_named(tmp_path):
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(write(tmp_path) / "tiny" / "1.jpg")
    with pytest.raises(SampleError, match=r"1\.jpg is 8 high and 13 wide.*says 8 and 12"):
        read_coco_instances(tmp_path, "tiny").sample(0)


def test_a_picture_that_was_annotated_turned_is_told_so(tmp_path):
    root = write(tmp_path, {"segmentation": [SQUARE]})
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (HEIGHT, WIDTH)).save(root / "tiny/1.jpg", exif=exif)
    with pytest.raises(SampleError, match=r"says 8 and 12.*EXIF"):
        read_coco_instances(root, "tiny").sample(0)


# -- LVIS


def lvis_folder(root, **picture):
    """A cat with a box of 4 x 4 pixels; `picture` says what else LVIS knows of it."""
    entry = {"id": 1, "coco_url": "http://x.org/val2017/1.jpg", "height": HEIGHT, "width": WIDTH, **picture}
    categories = [
        {"id": 3, "name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"]},
        {"id": 7, "name": "tin", "synonyms": ["tin", "spray_can"]},
    ]
    return write(
        root,
        {"segmentation": [SQUARE]},
        json_path="annotations/lvis_v1_val.json",
        pictures="val2017",
        images=[entry],
        categories=categories,
    )


def test_lvis_pictures_lie_where_their_url_says(tmp_path):
    sample = open_layout("lvis", lvis_folder(tmp_path, file_name="COCO_val2014_1.jpg")).sample(0)
    assert sample.frames == (tmp_path / "val2017" / "1.jpg",)
    assert len(sample.annotation.segments) == 1


def test_lvis_synonyms_stay_with_the_first_class(tmp_path):
    assert read_lvis(lvis_folder(tmp_path), "v1_val").label_space.prompts == (("aerosol can", "spray can"), ("tin",))


def test_a_class_that_lvis_did_not_exhaust_is_a_crowd_outside_the_boxes(tmp_path):
    source = read_lvis(lvis_folder(tmp_path, not_exhaustive_category_ids=[7]), "v1_val")
    cat, crowd = source.sample(0).annotation.segments
    assert (crowd.category_id, crowd.is_crowd, cat.is_crowd) == (1, True, False)
    assert np.array_equal(decode_region(crowd.masks[0], (HEIGHT, WIDTH)), ~square_mask().astype(bool))


def test_lvis_says_which_classes_are_certain_in_a_picture(tmp_path):
    source = read_lvis(lvis_folder(tmp_path, neg_category_ids=[7], not_exhaustive_category_ids=[3]), "v1_val")
    assert source.certain_classes(0) == source.sample(0).annotation.certain_classes == {1}


def test_a_class_of_several_lvis_categories_is_certain_when_all_of_them_are(tmp_path):
    space = LabelSpace.from_names(["can|aerosol_can|tin", "tree"])
    certain = []
    for place, absent in enumerate(([], [7])):
        root = lvis_folder(tmp_path / str(place), neg_category_ids=absent, not_exhaustive_category_ids=[])
        certain.append(read_lvis(root, "v1_val", label_space=space).certain_classes(0))
    assert certain == [frozenset(), {0}]


def test_a_coco_file_with_keys_of_lvis_says_which_classes_are_certain(tmp_path):
    images = [{"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH, "neg_category_ids": [7]}]
    categories = [{"id": number, "name": name} for number, name in ((3, "cat"), (7, "dog"), (9, "cow"))]
    write(tmp_path, {"segmentation": [SQUARE]}, images=images, categories=categories)
    assert read_coco_instances(tmp_path, "tiny").sample(0).annotation.certain_classes == {0, 1}


# -- real files


@pytest.mark.parametrize(
    ("split", "pictures", "objects", "classes", "crowds"),
    [("train2017", 100, 747, 69, 6), ("val2017", 60, 454, 63, 5)],
)
def test_real_coco_files_give_the_objects_of_the_json(shared_data, split, pictures, objects, classes, crowds):
    source = read_coco_instances(shared_data / "coco", split)
    segments = [segment for sample in source for segment in sample.annotation.segments]
    assert (source.num_samples, len(segments)) == (pictures, objects)
    assert len({segment.category_id for segment in segments}) == classes
    assert sum(segment.is_crowd for segment in segments) == crowds
    assert source.label_space.name == "coco_instance" and source.tasks == ("instance", "interactive")


def test_real_polygons_have_the_area_that_the_json_states(shared_data):
    source = read_coco_instances(shared_data / "coco", "train2017")
    content = json.loads(source.json_path.read_text())
    stated = {entry["id"]: entry["area"] for entry in content["annotations"] if entry["area"] > 400}
    segments = [segment for sample in source for segment in sample.annotation.segments]
    ratios = [region_area(s.masks[0]) / stated[s.track_id] for s in segments if s.track_id in stated]
    # COCO counts places twice where an object's polygons overlap.
    assert len(ratios) == len(stated) == 510
    assert np.allclose(np.quantile(ratios, [0.05, 0.5, 0.95]), 1, atol=0.02)


def test_the_real_labelme_export_is_read(shared_data):
    source = read_coco_instances(shared_data / "voc_labelme" / "VOC", "annotations")
    assert (source.num_samples, len(source.label_space)) == (3, 20)
    assert sum(len(sample.annotation.segments) for sample in source) == 12


def test_real_lvis_files_give_the_objects_of_the_json(shared_data):
    source = read_lvis(shared_data / "lvis", "v0.5_val_subset")
    segments = [s for sample in source for s in sample.annotation.segments if not s.is_crowd]
    assert (source.num_samples, len(source.label_space), len(segments)) == (9, 1230, 55)
    assert len({segment.category_id for segment in segments}) == 21


def test_the_real_lvis_file_without_pictures_opens_and_skips_them(shared_data):
    source = read_lvis(shared_data / "lvis", "val_100_no_images", on_error="skip")
    assert (source.num_samples, sum(len(objects) for objects in source._objects.values())) == (100, 977)
    assert len(list(source)) == 9 and len(source.skipped) == 91
