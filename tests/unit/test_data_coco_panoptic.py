"""Reader of the COCO panoptic layout: exact on real files, precise about broken ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data import SampleError, read_coco_panoptic
from omg_transformers.data.regions import decode_region, region_area
from omg_transformers.labels import LabelSpace, builtin_label_space

HEIGHT, WIDTH = 6, 9
SPACE = LabelSpace.from_names(["cat", "dog", "grass"], things=["cat", "dog"])


@pytest.fixture
def folder(tmp_path):
    """Two pictures: a cat (id 1), a crowd of dogs (id 300), grass (id 70000) and void in the last row."""
    (tmp_path / "tiny").mkdir()
    png_folder = tmp_path / "annotations" / "panoptic_tiny"
    png_folder.mkdir(parents=True)
    ids = np.full((HEIGHT, WIDTH), 70000)
    ids[:3, :2], ids[:2, 5:], ids[-1] = 1, 300, 0
    colors = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    infos = [
        {"id": 1, "category_id": 17, "iscrowd": 0},
        {"id": 300, "category_id": 18, "iscrowd": 1},
        {"id": 70000, "category_id": 193, "iscrowd": 0},
    ]
    content = {"images": [], "annotations": [], "categories": []}
    for number in (5, 6):
        Image.new("RGB", (WIDTH, HEIGHT), (9, 9, 9)).save(tmp_path / "tiny" / f"{number}.jpg")
        Image.fromarray(colors).save(png_folder / f"{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH})
        content["annotations"].append({"image_id": number, "file_name": f"{number}.png", "segments_info": infos})
    names = ((17, "cat", 1, "animal"), (18, "dog", 1, "animal"), (193, "grass-merged", 0, "plant"))
    content["categories"] = [
        {"id": number, "name": name, "isthing": thing, "supercategory": group} for number, name, thing, group in names
    ]
    (tmp_path / "annotations" / "panoptic_tiny.json").write_text(json.dumps(content))
    return tmp_path


def change_json(folder, change):
    path = folder / "annotations" / "panoptic_tiny.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def read(folder, **options):
    return read_coco_panoptic(folder, "tiny", label_space=SPACE, **options)


def test_segments_crowd_and_void_are_read_exactly(folder):
    sample = read(folder).sample(0)
    annotation = sample.annotation
    cat, dogs, grass = annotation.segments
    assert [segment.category_id for segment in annotation.segments] == [0, 1, 2]
    assert [segment.is_crowd for segment in annotation.segments] == [False, True, False]
    assert [region_area(segment.masks[0]) for segment in (cat, dogs, grass)] == [6, 8, 45 - 14]
    assert region_area(annotation.void[0]) == WIDTH
    assert decode_region(cat.masks[0], annotation.size)[:3, :2].all()
    assert annotation.is_thing == (True, True, False)
    assert sample.sample_id == "5"


def test_a_coarser_space_merges_by_supercategory(folder):
    space = LabelSpace.from_names(["animal", "plant"], things=["animal"])
    annotation = read_coco_panoptic(folder, "tiny", label_space=space).sample(0).annotation
    assert [segment.category_id for segment in annotation.segments] == [0, 0, 1]


def test_stuff_that_falls_into_one_class_becomes_one_segment(folder):
    change_json(folder, lambda content: content["categories"][0].update(isthing=0))
    change_json(folder, lambda content: content["annotations"][0]["segments_info"][1].update(iscrowd=0))
    space = LabelSpace.from_names(["animal", "plant"], things=[])
    annotation = read_coco_panoptic(folder, "tiny", label_space=space).sample(0).annotation
    assert [region_area(segment.masks[0]) for segment in annotation.segments] == [14, 31]


def test_a_category_without_a_class_is_named_at_once(folder):
    with pytest.raises(ValueError, match=r"label space 'custom': 18 \(dog\)"):
        read_coco_panoptic(folder, "tiny", label_space=LabelSpace.from_names(["cat", "grass"]))


def test_a_missing_png_is_named(folder):
    (folder / "annotations" / "panoptic_tiny" / "5.png").unlink()
    with pytest.raises(SampleError, match=r"panoptic_tiny/5\.png does not exist"):
        read(folder).sample(0)


def test_a_missing_picture_is_named(folder):
    (folder / "tiny" / "5.jpg").unlink()
    with pytest.raises(SampleError, match=r"tiny/5\.jpg .*does not exist"):
        read(folder).sample(0)


def test_a_damaged_png_is_named(folder):
    (folder / "annotations" / "panoptic_tiny" / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SampleError, match=r"5\.png is not a readable PNG"):
        read(folder).sample(0)


def test_an_id_without_pixels_is_named(folder):
    extra = {"id": 44, "category_id": 17, "iscrowd": 0}
    change_json(folder, lambda content: content["annotations"][0]["segments_info"].append(extra))
    with pytest.raises(SampleError, match=r"5\.png: segment 44 .*no pixel"):
        read(folder).sample(0)


def test_an_id_that_the_json_does_not_list_is_named(folder):
    change_json(folder, lambda content: content["annotations"][0]["segments_info"].pop())
    with pytest.raises(SampleError, match=r"5\.png holds the segment ids \[70000\]"):
        read(folder).sample(0)


def test_a_segment_of_an_unknown_category_is_named(folder):
    change_json(folder, lambda content: content["annotations"][0]["segments_info"][0].update(category_id=99))
    with pytest.raises(SampleError, match=r"segment 1 of 5\.png has category 99"):
        read(folder).sample(0)


def test_a_picture_of_another_size_is_named(folder):
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(folder / "tiny" / "5.jpg")
    with pytest.raises(SampleError, match=r"5\.jpg is 6 high and 10 wide"):
        read(folder).sample(0)


def test_an_annotation_of_an_unlisted_picture_is_named(folder):
    change_json(folder, lambda content: content["images"].pop(0))
    with pytest.raises(SampleError, match=r"5\.png belongs to picture 5"):
        read(folder).sample(0)


def test_a_bad_sample_costs_only_itself_when_skipped(folder):
    (folder / "annotations" / "panoptic_tiny" / "5.png").unlink()
    source = read(folder, on_error="skip")
    assert [sample.sample_id for sample in source] == ["6"]
    assert len(source.skipped) == 1 and "5.png" in source.skipped[0]


def test_a_bad_sample_stops_the_walk_by_default(folder):
    (folder / "annotations" / "panoptic_tiny" / "5.png").unlink()
    with pytest.raises(SampleError):
        list(read(folder))


def test_a_missing_json_names_the_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"annotations/panoptic_tiny\.json .*COCO layout"):
        read(tmp_path)


def test_a_json_of_another_kind_is_refused(folder):
    (folder / "annotations" / "panoptic_tiny.json").write_text('{"images": []}')
    with pytest.raises(ValueError, match=r"no \['annotations', 'categories'\]"):
        read(folder)


def test_an_unknown_policy_is_refused(folder):
    with pytest.raises(ValueError, match="on_error is 'ignore'"):
        read(folder, on_error="ignore")


def check_against_json(source, records):
    """Each listed segment, in the fine space, has the area that the JSON states; with void they fill the picture."""
    for record, sample in zip(records, source, strict=False):
        annotation = sample.annotation
        areas = {info["id"]: info["area"] for info in record["segments_info"]}
        assert {segment.track_id: region_area(segment.masks[0]) for segment in annotation.segments} == areas
        covered = sum(areas.values()) + region_area(annotation.void[0])
        assert covered == annotation.size[0] * annotation.size[1]


def test_the_first_real_files_give_the_segments_of_the_json(shared_data):
    source = read_coco_panoptic(shared_data / "coco", "val2017")
    check_against_json(source, json.loads(source.json_path.read_text())["annotations"][:6])


@pytest.mark.parametrize(("split", "pictures", "segments"), [("train2017", 100, 1111), ("val2017", 60, 672)])
@pytest.mark.slow
def test_real_files_give_the_segments_of_the_json(shared_data, split, pictures, segments):
    source = read_coco_panoptic(shared_data / "coco", split)
    records = json.loads(source.json_path.read_text())["annotations"]
    check_against_json(source, records)
    found = sum(len(sample.annotation.segments) for sample in source)
    assert (len(records), source.num_samples, found) == (pictures, pictures, segments)


def test_real_files_give_the_classes_of_the_json(shared_data):
    source = read_coco_panoptic(shared_data / "coco", "val2017", label_space=builtin_label_space("coco_supercategory"))
    content = json.loads(source.json_path.read_text())
    is_thing = {category["id"]: bool(category["isthing"]) for category in content["categories"]}
    for index in range(3):
        infos = content["annotations"][index]["segments_info"]
        segments = source.sample(index).annotation.segments
        things = [segment for segment in segments if source.label_space.is_thing[segment.category_id]]
        assert len(things) == sum(is_thing[info["category_id"]] for info in infos)


@pytest.mark.parametrize(
    ("key", "rows", "message"),
    [
        ("images", [7], "picture 0 is 7: expected an object"),
        ("images", [{"id": 5, "file_name": "5.jpg", "width": WIDTH}], "picture 5 has no height"),
        ("annotations", {"5": {}}, "expected a list, one object per annotation"),
        ("annotations", [{"image_id": 5, "file_name": None}], "annotation number 0 has file_name=None"),
        ("categories", ["cat"], "category 0 is 'cat': expected an object"),
    ],
)
def test_a_file_whose_lists_hold_other_things_is_named(folder, key, rows, message):
    change_json(folder, lambda content: content.update({key: rows}))
    with pytest.raises(ValueError, match=rf"panoptic_tiny\.json.*{message}"):
        read(folder)


@pytest.mark.parametrize(
    ("segment", "message"),
    [(7, "segment 0 is 7"), ({"id": 1}, "segment 1 has no category_id"), ({"category_id": 17}, "has no id")],
)
def test_a_segment_that_is_none_costs_only_its_sample(folder, segment, message):
    change_json(folder, lambda content: content["annotations"][0]["segments_info"].__setitem__(0, segment))
    source = read_coco_panoptic(folder, "tiny", on_error="skip")
    assert [sample.sample_id for sample in source] == ["6"] and message in source.skipped[0]
