"""YouTube-VIS's form: masks as RLE, polygons or null, videos of which not every object was annotated."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omg_transformers.data import SampleError, detect_layouts, open_layout
from omg_transformers.data.regions import decode_region
from omg_transformers.labels import LabelSpace, builtin_label_space

SIZE = (10, 14)
MASK = np.zeros(SIZE, np.uint8)
MASK[2:6, 3:9] = 1
COMPRESSED = {**coco_mask.encode(np.asfortranarray(MASK)), "size": list(SIZE)}
COMPRESSED["counts"] = COMPRESSED["counts"].decode()
# Columns first: 3 empty ones, then 2 rows above and 4 below in each of 6.
PLAIN = {"size": list(SIZE), "counts": [32, 4, *[6, 4] * 5, 54]}
POLYGON = [[3, 2, 9, 2, 9, 6, 3, 6]]


def content_of(annotations, *, frames=2, videos=1, categories=("dog", "boat"), **more):
    return {
        "videos": [
            {
                "id": number,
                "height": SIZE[0],
                "width": SIZE[1],
                "length": frames,
                "file_names": [f"v{number}/{frame:05d}.jpg" for frame in range(frames)],
                **more,
            }
            for number in range(videos)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
        "annotations": annotations,
    }


def track(*masks, number=1, video=0, category=1, **more):
    return {"id": number, "video_id": video, "category_id": category, "segmentations": list(masks), **more}


def write(root, content, place="train/instances.json", pictures="train/JPEGImages"):
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(json.dumps(content))
    for video in content["videos"]:
        for name in video["file_names"]:
            (root / pictures / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE[::-1]).save(root / pictures / name)
    return root


@pytest.mark.parametrize("form", [COMPRESSED, PLAIN, POLYGON], ids=["compressed", "plain", "polygon"])
def test_every_form_of_a_mask_is_read(tmp_path, form):
    annotation = open_layout("youtube_vis", write(tmp_path, content_of([track(form, form)]))).sample(0).annotation
    assert np.array_equal(decode_region(annotation.segments[0].masks[1], SIZE), MASK.astype(bool))


@pytest.mark.parametrize("absent", [None, []])
def test_null_and_an_empty_list_mean_that_the_object_is_not_there(tmp_path, absent):
    annotation = (
        open_layout("youtube_vis", write(tmp_path, content_of([track(COMPRESSED, absent)]))).sample(0).annotation
    )
    assert annotation.segments[0].masks[1] is None
    assert annotation.void == (None, None)


def test_tracks_have_class_id_and_crowd(tmp_path):
    rows = [track(COMPRESSED, None, number=7), track(None, PLAIN, number=4, category=2, iscrowd=1)]
    source = open_layout("youtube_vis", write(tmp_path, content_of(rows)))
    found = [
        (source.label_space.names[segment.category_id], segment.track_id, segment.is_crowd)
        for segment in source.sample(0).annotation.segments
    ]
    assert found == [("boat", 4, True), ("dog", 7, False)]
    assert source.tasks == ("video_instance", "video_object")


def test_tracks_belong_to_their_own_video(tmp_path):
    rows = [track(COMPRESSED, None, number=1, video=1), track(PLAIN, None, number=2, video=0)]
    source = open_layout("youtube_vis", write(tmp_path, content_of(rows, videos=2)))
    assert [[segment.track_id for segment in sample.annotation.segments] for sample in source] == [[2], [1]]


def test_no_class_is_certain_in_an_incomplete_video(tmp_path):
    rows = [track(COMPRESSED, None), track(COMPRESSED, None, number=2, video=1)]
    content = content_of(rows, videos=2)
    content["videos"][0]["exhaustive"] = False
    source = open_layout("youtube_vis", write(tmp_path, content))
    assert [sample.annotation.certain_classes for sample in source] == [frozenset(), None]
    # Around an annotated object nothing is of that object: its outline can be learnt.
    assert source.sample(0).annotation.void == (None, None)


def test_incomplete_videos_can_be_left_out_or_trusted(tmp_path):
    content = content_of([track(COMPRESSED, None), track(COMPRESSED, None, number=2, video=1)], videos=2)
    content["videos"][0]["exhaustive"] = False
    root = write(tmp_path, content)
    assert [sample.sample_id for sample in open_layout("youtube_vis", root, incomplete="leave_out")] == ["v1"]
    assert open_layout("youtube_vis", root, incomplete="trust").sample(0).annotation.is_exhaustive
    with pytest.raises(ValueError, match="incomplete is 'drop': expected one of 'mark'"):
        open_layout("youtube_vis", root, incomplete="drop")


@pytest.mark.parametrize("year", ["2019", "2021"])
def test_the_classes_of_a_year_are_recognised(tmp_path, year):
    space = builtin_label_space(f"youtube_vis_{year}")
    content = content_of([track(COMPRESSED, None)])
    content["categories"] = [
        {"id": label.dataset_id, "name": label.dataset_name or label.name} for label in space.classes
    ]
    assert open_layout("youtube_vis", write(tmp_path, content)).label_space is space


def test_other_classes_make_a_label_space_of_their_own(tmp_path):
    space = open_layout("youtube_vis", write(tmp_path, content_of([track(COMPRESSED, None)]))).label_space
    assert space.names == ("dog", "boat") and space.dataset_ids == (1, 2)


def test_a_wanted_space_needs_only_the_classes_that_occur(tmp_path):
    root = write(tmp_path, content_of([track(COMPRESSED, None)]))
    space = LabelSpace.from_names(["animal|dog"])
    assert open_layout("youtube_vis", root, label_space=space).sample(0).annotation.segments[0].category_id == 0


@pytest.mark.parametrize(
    ("place", "pictures", "split"),
    [
        ("train.json", "train/JPEGImages", "train"),
        ("annotations_train.json", "train", "train"),
        ("annotations/instances_train_sub.json", "train/JPEGImages", "train_sub"),
        ("instances.json", "JPEGImages", "instances"),
    ],
)
def test_files_and_frames_are_found_where_people_keep_them(tmp_path, place, pictures, split):
    root = write(tmp_path, content_of([track(COMPRESSED, None)]), place, pictures)
    detection = detect_layouts(root)[0]
    assert (detection.layout.name, detection.splits) == ("youtube_vis", (split,))
    assert all(frame.is_file() for frame in open_layout("youtube_vis", root).sample(0).frames)


def test_folders_with_a_file_per_picture_are_not_searched(tmp_path):
    root = write(tmp_path, content_of([track(COMPRESSED, None)]), "train.json")
    assert detect_layouts(root)[0].layout.name == "youtube_vis"
    for number in range(100):
        (root / f"{number}.json").write_text("{}")
    assert "youtube_vis" not in [detection.layout.name for detection in detect_layouts(root)]


def test_the_folder_of_the_frames_can_be_given(tmp_path):
    root = write(tmp_path, content_of([track(COMPRESSED, None)]), pictures="elsewhere/frames")
    sample = open_layout("youtube_vis", root, pictures="elsewhere/frames").sample(0)
    assert all(frame.is_file() for frame in sample.frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": []}, "holds no annotations: the files of the validation and test splits"),
        (
            {"annotations": [track(None, None, video=9)]},
            "annotation 1 belongs to video 9, which `videos` does not list",
        ),
        ({"annotations": [{"id": 1, "video_id": 0}]}, "annotation 1 has no category_id: expected a whole number"),
        ({"annotations": [track(None, None), track(None, None)]}, "the annotation ids 1 occur twice in video 0"),
        ({"videos": [{"id": 0, "height": 4, "width": 0, "file_names": ["v/0.jpg"]}]}, "video 0 is 4 high and 0 wide"),
        ({"videos": [{"id": 0, "height": 4, "width": 4, "file_names": [[]]}]}, "expected positive numbers and names"),
        ({"annotations": [track(None, None, category=5)]}, "annotations have the categories 5, which are not listed"),
    ],
)
def test_a_bad_file_is_refused_at_once(tmp_path, change, message):
    content = content_of([track(COMPRESSED, None)])
    root = write(tmp_path, content)
    (root / "train/instances.json").write_text(json.dumps({**content, **change}))
    with pytest.raises(ValueError, match=message):
        open_layout("youtube_vis", root, "train")


def test_a_file_that_was_cut_short_is_named(tmp_path):
    root = write(tmp_path, content_of([track(COMPRESSED, None)]))
    text = (root / "train/instances.json").read_text()
    (root / "train/instances.json").write_text(text[:-20])
    with pytest.raises(ValueError, match=r"instances\.json is not valid JSON"):
        open_layout("youtube_vis", root)


def test_a_missing_split_is_answered_with_those_that_are_there(tmp_path):
    with pytest.raises(ValueError, match="has no split 'valid' in the layout youtube_vis"):
        open_layout("youtube_vis", write(tmp_path, content_of([track(COMPRESSED, None)])), "valid")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (track(COMPRESSED), r"annotation 1 of video v0 has 1 segmentations for 2 frames"),
        (track({**COMPRESSED, "size": [3, 4]}, None), r"frame 0 has an RLE of size \[3, 4\]"),
        (track({**PLAIN, "counts": [1, 2]}, None), "run lengths that do not add up to 10 x 14 pixels"),
        (track([[1, 2, 3]], None), "a polygon of 1.5 points"),
    ],
)
def test_a_bad_track_is_an_error_of_its_video(tmp_path, row, message):
    good = track(COMPRESSED, None, number=2, video=1)
    source = open_layout("youtube_vis", write(tmp_path, content_of([row, good], videos=2)))
    assert len(source.sample(1).annotation.segments) == 1
    with pytest.raises(SampleError, match=message):
        source.sample(0)


def test_a_length_that_disagrees_is_an_error_of_its_video(tmp_path):
    content = content_of([track(COMPRESSED, None)])
    content["videos"][0]["length"] = 5
    with pytest.raises(SampleError, match="video v0 has length 5, but 2 file_names"):
        open_layout("youtube_vis", write(tmp_path, content)).sample(0)


def test_the_real_videos_have_the_tracks_of_their_readme(shared_data):
    source = open_layout("youtube_vis", shared_data / "youtubevis")
    samples = list(source)
    assert source.label_space is builtin_label_space("youtube_vis_2021")
    assert (len(samples), sum(len(sample.frames) for sample in samples)) == (9, 88)
    names = Counter(
        source.label_space.names[segment.category_id] for sample in samples for segment in sample.annotation.segments
    )
    assert sum(names.values()) == 11
    assert set(names) == {"person", "bird", "elephant", "monkey", "dog", "car"}
    absent = sum(rle is None for sample in samples for segment in sample.annotation.segments for rle in segment.masks)
    assert absent == 1


def test_of_the_real_videos_only_dogs_jump_is_complete(shared_data):
    source = open_layout("youtube_vis", shared_data / "youtubevis")
    complete = [sample.sample_id for sample in source if sample.annotation.is_exhaustive]
    assert complete == ["dogs-jump"]
