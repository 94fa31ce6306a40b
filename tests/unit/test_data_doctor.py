"""The data doctor on files: each kind of fault, planted into a copy of a sound data set, is found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_transformers.data.doctor import KINDS, check_folder, check_source, format_report, write_report
from omg_transformers.data.doctor.classes import is_void_name, shifted_ids
from omg_transformers.data.doctor.kinds import numbers_without_class
from omg_transformers.data.writers import write_source

from . import test_data_doctor_samples
from .drawn_samples import SIZE, SPACE, drawn_source

HEIGHT, WIDTH = SIZE


@pytest.fixture(scope="module")
def sound_instances(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "set"
    write_source(drawn_source(0, 12), "coco_instances", root, "train")
    write_source(drawn_source(12, 8), "coco_instances", root, "val")
    return root


@pytest.fixture
def instances(sound_instances, tmp_path):
    return shutil.copytree(sound_instances, tmp_path / "copy")


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def train_json(root, change):
    change_json(root / "annotations" / "instances_train.json", change)


def pictures(root, split="train"):
    return sorted((root / split).iterdir())


def first(rows, **wanted):
    return next(row for row in rows if all(row[key] == value for key, value in wanted.items()))


def shift_ids(root):
    def change(content):
        for row in content["annotations"]:
            row["category_id"] += 1

    train_json(root, change)


def rotate_ids(root):
    def change(content):
        for row in content["annotations"]:
            row["category_id"] = row["category_id"] % len(SPACE) + 1

    change_json(root / "annotations" / "instances_val.json", change)


def set_annotation(**values):
    """Changes a thing; the first two annotations of a picture are grass and sky."""
    return lambda root: train_json(root, lambda content: content["annotations"][2].update(values))


def polygon(left, top, right, bottom):
    return set_annotation(segmentation=[[left, top, right, top, right, bottom, left, bottom]])


def call_a_class_void(root):
    train_json(root, lambda content: content["categories"][0].update(name="unlabeled"))


def empty_a_picture(root):
    def change(content):
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != 3]

    train_json(root, change)


def use_an_id_twice(root):
    train_json(root, lambda content: content["annotations"][5].update(id=content["annotations"][0]["id"]))


def use_a_picture_id_twice(root):
    train_json(root, lambda content: content["images"][1].update(id=content["images"][0]["id"]))


def annotate_an_object_twice(root):
    def change(content):
        content["annotations"].append({**content["annotations"][2], "id": 999})

    train_json(root, change)


def shrink_a_picture(root):
    with Image.open(pictures(root)[2]) as picture:
        picture.resize((WIDTH // 2, HEIGHT // 2)).save(pictures(root)[2])


def resize_a_picture_with_its_annotations(root):
    shrink_a_picture(root)

    def change(content):
        picture = first(content["images"], file_name=pictures(root)[2].name)
        picture.update(height=HEIGHT // 2, width=WIDTH // 2)
        content["annotations"] = [row for row in content["annotations"] if row["image_id"] != picture["id"]]

    train_json(root, change)


def cut_a_picture(root):
    path = pictures(root)[4]
    path.write_bytes(path.read_bytes()[:300])


def cut_the_json(root):
    path = root / "annotations" / "instances_val.json"
    path.write_bytes(path.read_bytes()[:-200])


def copy_a_picture_within(root):
    shutil.copy(pictures(root)[0], pictures(root)[1])


def list_a_picture_twice(root):
    train_json(root, lambda content: content["images"].append({**content["images"][0], "id": 999}))


def copy_a_picture_into_val(root):
    shutil.copy(pictures(root)[0], pictures(root, "val")[0])


def copy_a_split(root):
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    source = root / "annotations" / "instances_train.json"
    content = json.loads(source.read_text())
    content["images"] = content["images"][:4]
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] <= 4]
    (root / "annotations" / "instances_val.json").write_text(json.dumps(content))


def imitate(source, target):
    """Nearly the same picture: a little lighter, in another file format."""
    with Image.open(source) as picture:
        pixels = np.asarray(picture).astype(int)
    Image.fromarray(np.clip(pixels + 1, 0, 255).astype(np.uint8)).save(target)


def turn_a_picture(root):
    with Image.open(pictures(root)[0]) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(pictures(root)[0], exif=exif)


def add_a_picture(root):
    Image.new("RGB", (8, 8)).save(root / "train" / "stranger.jpg")


PLANTS = [
    ("off_by_one", shift_ids),
    ("off_by_one", rotate_ids),
    ("category_not_listed", shift_ids),
    ("category_not_listed", set_annotation(category_id=77)),
    ("void_as_class", call_a_class_void),
    ("empty_picture", empty_a_picture),
    ("duplicated_id", use_an_id_twice),
    ("duplicated_id", use_a_picture_id_twice),
    ("duplicated_segment", annotate_an_object_twice),
    ("size_differs", shrink_a_picture),
    ("mixed_sizes", resize_a_picture_with_its_annotations),
    ("broken_file", cut_a_picture),
    ("broken_file", cut_the_json),
    ("missing_file", lambda root: pictures(root)[3].unlink()),
    ("missing_file", set_annotation(image_id=4711)),
    ("outside_picture", polygon(200, 5, 220, 15)),
    ("polygon_outside", polygon(30, 5, 80, 15)),
    ("unusable_sample", set_annotation(segmentation=[[1, 2, 3, 4]])),
    ("box_disagrees", set_annotation(bbox=[0, 0, 9, 9])),
    ("area_disagrees", set_annotation(area=17)),
    ("tiny_segment", polygon(5, 5, 6, 6)),
    ("fills_picture", polygon(0, 0, WIDTH, HEIGHT)),
    ("duplicated_picture", copy_a_picture_within),
    ("duplicated_picture", list_a_picture_twice),
    ("similar_pictures", lambda root: imitate(pictures(root)[0], pictures(root)[1])),
    ("similar_in_splits", lambda root: imitate(pictures(root)[0], pictures(root, "val")[0])),
    ("leakage", copy_a_picture_into_val),
    ("split_inside_split", copy_a_split),
    ("turned_picture", turn_a_picture),
    ("picture_not_listed", add_a_picture),
]
# Kinds that need another layout, clips or masks; planted below and in test_data_doctor_samples.
ELSEWHERE = {"cannot_open", "id_without_class", "few_samples_checked", "unused_class", "empty_segment"}


def found_kinds(root, kind="coco_instances", **options):
    return set(check_folder(root, kind, **options).kinds)


def test_the_sound_set_is_sound(instances):
    report = check_folder(instances, "coco_instances")
    assert report.problems == []
    assert report.is_sound(strict=True)
    assert [(split.name, split.num_usable, split.num_frames) for split in report.splits] == [
        ("train", 12, 12),
        ("val", 8, 8),
    ]
    assert "nothing was found" in format_report(report)


@pytest.mark.parametrize(("kind", "plant"), PLANTS, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(PLANTS)])
def test_a_planted_fault_is_named(instances, kind, plant):
    plant(instances)
    report = check_folder(instances, "coco_instances")
    assert kind in report.kinds
    assert report.is_sound() == (not any(KINDS[found].severity == "error" for found in report.kinds))


def test_every_kind_is_planted_somewhere():
    planted = {kind for kind, _ in PLANTS} | ELSEWHERE | set(test_data_doctor_samples.PLANTED)
    assert planted == set(KINDS)


def test_the_page_about_it_names_every_kind():
    page = (Path(__file__).parents[2] / "docs" / "data_doctor.md").read_text(encoding="utf-8")
    assert [kind for kind in KINDS if f"`{kind}`" not in page] == []


def test_a_bad_sample_does_not_hide_the_others(instances):
    cut_a_picture(instances)
    report = check_folder(instances, "coco_instances")
    (problem,) = report.of_kind("broken_file")
    assert pictures(instances)[4].name in problem.message
    assert (problem.split, problem.index) == ("train", 4)
    assert report.splits[0].num_samples == 12


def test_a_fault_of_one_object_says_where_it_is(instances):
    set_annotation(bbox=[0, 0, 9, 9])(instances)
    (problem,) = check_folder(instances, "coco_instances").of_kind("box_disagrees")
    assert (problem.sample_id, problem.frame) == ("1", 0)
    assert "stated x, y, width, height 0 0 9 9" in problem.message


def test_a_split_that_cannot_be_opened_is_a_fault(tmp_path):
    write_source(drawn_source(0, 2), "yolo_seg", tmp_path, "train")
    (tmp_path / "data.yaml").unlink()
    report = check_folder(tmp_path, "yolo_seg")
    assert report.kinds == ("cannot_open",)
    assert "names no classes" in report.problems[0].message


def test_a_picture_without_a_labelme_file_is_noted(tmp_path):
    square = [[1, 1], [9, 1], [9, 9], [1, 9]]
    content = {"imagePath": "a.png", "imageData": None, "shapes": [{"label": "cat", "points": square}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / name)
    (problem,) = check_folder(tmp_path).of_kind("picture_not_listed")
    assert problem.message == "1: b.png"


def test_a_png_that_no_annotation_mentions_is_noted(instances):
    assert {path.suffix for path in pictures(instances)} == {".png"}
    Image.new("RGB", (WIDTH, HEIGHT)).save(instances / "train" / "stranger.png")
    assert "stranger.png" in check_folder(instances).of_kind("picture_not_listed")[0].message


@pytest.mark.parametrize(("values", "names"), [((1, 2, 3), "a\nb\nc\n"), ((1, 2, 3, 4), "background\na\nb\nc\n")])
def test_masks_whose_ids_are_one_too_high_are_suspected(tmp_path, values, names):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{number}.png")
        mask = np.array(values, np.uint8)[np.arange(9)[:, None] % len(values) * np.ones((9, 12), int)]
        Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
    (tmp_path / "classes.txt").write_text(names)
    report = check_folder(tmp_path, "mask_folder")
    assert {"id_without_class", "off_by_one"} <= set(report.kinds)
    assert "subtract 1" in report.of_kind("off_by_one")[0].message


def test_a_listed_segment_without_pixels_is_named(tmp_path):
    write_source(drawn_source(0, 2), "coco_panoptic", tmp_path, "train")
    entry = {"id": 99, "category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]}
    change_json(
        tmp_path / "annotations" / "panoptic_train.json",
        lambda content: content["annotations"][1]["segments_info"].append(entry),
    )
    report = check_folder(tmp_path, "coco_panoptic", label_space=SPACE)
    assert "empty_segment" in report.kinds
    assert report.splits[0].num_usable == 1


def test_a_category_called_void_is_named_also_when_its_supercategory_is_read(tmp_path):
    write_source(drawn_source(0, 4), "coco_panoptic", tmp_path, "train")
    change_json(
        tmp_path / "annotations" / "panoptic_train.json",
        lambda content: content["categories"][4].update(name="ignore", supercategory="grass"),
    )
    (problem,) = check_folder(tmp_path, "coco_panoptic", label_space=SPACE).of_kind("void_as_class")
    assert problem.message == "the category 'ignore' (id 5) has 4 segments"


def test_pictures_of_another_data_set_are_found(instances, tmp_path):
    other = drawn_source(30, 3)
    other.samples.append(drawn_source(2, 1).samples[0])
    write_source(other, "yolo_seg", tmp_path / "other", "test")
    assert "leakage" not in found_kinds(instances)
    (problem,) = check_folder(instances, "coco_instances", against=[tmp_path / "other"]).of_kind("leakage")
    assert (problem.split, problem.sample_id) == ("train", "3")
    assert problem.message == f"it is the same file as 3 of {tmp_path / 'other'} test"


def test_a_limit_is_told(instances):
    report = check_folder(instances, "coco_instances", limit=2)
    assert report.splits[0].num_usable == 2
    assert report.of_kind("few_samples_checked")[0].message == "the first 2 of 12 samples"


def test_classes_that_never_occur_are_noted(instances):
    train_json(instances, lambda content: content["categories"].append({"id": 7, "name": "zebra"}))
    (problem,) = check_folder(instances, "coco_instances").of_kind("unused_class")
    assert problem.message == "1 of 7: zebra"


def test_a_folder_in_no_layout_is_refused_with_what_it_is(tmp_path):
    with pytest.raises(ValueError, match=r"is in no known layout. It is an empty folder"):
        check_folder(tmp_path)


def test_a_wrong_split_is_refused(instances):
    with pytest.raises(ValueError, match=r"has no split 'trian'.*did you mean train"):
        check_folder(instances, "coco_instances", ["trian"])


def test_an_endless_source_needs_a_limit():
    from omg_transformers.data import ProceduralScenes

    with pytest.raises(ValueError, match="endless: say with limit"):
        check_source(ProceduralScenes((24, 36)))


def test_the_report_is_written_with_pictures(instances, tmp_path):
    set_annotation(bbox=[0, 0, 9, 9])(instances)
    path = write_report(check_folder(instances, "coco_instances"), tmp_path / "out")
    text = path.read_text()
    assert "### box_disagrees" in text
    assert "| cat |" in text
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["kind"] for entry in content["kinds"]] == ["box_disagrees"]
    assert sorted(file.name for file in (tmp_path / "out" / "pictures").iterdir()) == [
        "box_disagrees.png",
        "classes_0.png",
        "classes_1.png",
    ]


@pytest.mark.parametrize(
    ("known", "used", "words"),
    [
        (range(1, 6), {2, 3, 6}, "subtract 1"),
        (range(1, 6), {0, 1, 4}, "add 1"),
        ([1, 3, 9], {2, 10}, "subtract 1"),
        (range(1, 6), {1, 2, 6}, ""),
        (range(1, 6), {1, 5}, ""),
        (range(1, 6), {77}, ""),
    ],
)
def test_ids_are_suspected_only_when_one_step_explains_all(known, used, words):
    text = shifted_ids(known, used)
    assert words in text if words else text == ""


def test_ids_are_read_from_what_readers_say():
    assert numbers_without_class("x.png holds the values 12, 13, which stand for no class: known are 0") == [12, 13]
    assert numbers_without_class("a.json: annotation 4 has category 9, which `categories` does not list") == [9]
    assert numbers_without_class("labels/1.txt, line 2 has class 3, which the names do not list") == [3]


@pytest.mark.parametrize("name", ["void", "Unlabeled", "__background__", "ignore-region", "don't care"])
def test_names_of_void_are_known(name):
    assert is_void_name(name)


def test_names_that_only_resemble_void_are_classes():
    assert not any(map(is_void_name, ("background building", "voided cheque", "other", "devoid")))
